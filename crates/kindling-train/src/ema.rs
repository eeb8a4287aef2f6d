//! An exponential moving average of what is trained of a model. Decides nothing: who trains says when, and who takes it.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use kindling_model::Gpt;

/// The average, flat by parameter path.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    weights: BTreeMap<String, Tensor<1>>,
}

impl Ema {
    /// An average that begins with the weights of `model`, a model that is trained; what is frozen has none.
    pub fn new(decay: f64, model: &Gpt) -> Self {
        let mut weights = BTreeMap::new();
        // A copy of its own: the optimizer writes into the weights that it is given.
        by_path(model, |path, weight| {
            weights.insert(path, weight * 1.0);
        });
        Self { decay, weights }
    }

    /// Takes the weights after `step` steps in. Early on the average forgets faster, or it would long be that of the initial
    /// weights.
    pub fn update(&mut self, model: &Gpt, step: u64) {
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        by_path(model, |path, weight| {
            let average = self.weights.remove(&path).expect("the average has the model's parameters");
            self.weights.insert(path, average * decay + weight * (1.0 - decay));
        });
    }

    /// The model with the average for its trained weights, without autodiff.
    pub fn model(&self, model: &Gpt) -> Gpt {
        model.valid().map(&mut Replace { weights: &self.weights, path: Vec::new() })
    }
}

/// Calls `f` with the path of each trained parameter and its values, flat and untracked.
fn by_path(model: &Gpt, f: impl FnMut(String, Tensor<1>)) {
    struct Visit<F>(F, Vec<String>);
    impl<F: FnMut(String, Tensor<1>)> ModuleVisitor for Visit<F> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.1.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.is_require_grad() {
                return;
            }
            let weight = param.val().inner();
            let n = weight.dims().iter().product::<usize>();
            (self.0)(self.1.join("."), weight.reshape([n]));
        }
    }
    model.visit(&mut Visit(f, Vec::new()));
}

struct Replace<'a> {
    weights: &'a BTreeMap<String, Tensor<1>>,
    path: Vec<String>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(average) = self.weights.get(&self.path.join(".")) else { return param };
        let (id, old, mapper) = param.consume();
        let average = average.clone().reshape(old.dims());
        Param::from_mapped_value(id, average, mapper)
    }
}
