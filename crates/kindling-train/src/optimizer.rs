//! An optimizer over a module: which parameter is updated how, a global norm, and a memory that is kept by parameter path.
//!
//! Burn's optimizers update single tensors, AdamW by [`kindling_kernels::adamw_step`]. Burn's module optimizer is not used: it keys
//! its state by parameter ids, which weights files do not carry, clips each tensor apart, and silently skips state it cannot read.

mod update;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use kindling_config::TrainConfig;
use kindling_kernels::sum_of_squares;
use kindling_model::ModelError;
use kindling_model::weights::{read_tensors, trained_parameters, write_tensors};

use update::{Memory, kind_of, update};

/// Takes the steps of [`TrainConfig::optimizer`].
pub struct Optimizer {
    config: TrainConfig,
    memory: BTreeMap<String, Memory>,
}

/// A gradient that is NaN or infinite.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// Path of the first parameter whose gradient it is.
    pub parameter: String,
}

impl Optimizer {
    /// An optimizer that remembers nothing yet.
    pub fn new(config: &TrainConfig) -> Self {
        Self { config: config.clone(), memory: BTreeMap::new() }
    }

    /// Takes one step and gives back the module, and the global norm of the gradients before clipping; [`NotFinite`] if a
    /// gradient is NaN or infinite, and nothing has changed then.
    pub fn step<M: Module>(&mut self, lr: f64, module: M, grads: GradientsParams) -> (M, Result<f64, NotFinite>) {
        let norm = global_norm(&module, &grads);
        if !norm.is_finite() {
            let parameter = first_not_finite(&module, &grads);
            return (module, Err(NotFinite { parameter }));
        }
        // As torch's clip_grad_norm_: the small number keeps a norm of zero harmless.
        let clip = self.config.grad_clip;
        let scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let module = module.map(&mut Step { optimizer: self, grads, lr, scale, path: Vec::new() });
        (module, Ok(norm))
    }

    /// Writes what it remembers, under the parameters' paths, and syncs the file.
    ///
    /// # Errors
    /// I/O with the path.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let parts = self
            .memory
            .iter()
            .flat_map(|(name, memory)| memory.parts().into_iter().map(move |(part, host)| (format!("{name}.{part}"), host)));
        write_tensors(parts.collect::<Vec<_>>(), path)
    }

    /// Reads it back. There must be some for every parameter of `module` that is trained, of its own size.
    ///
    /// # Errors
    /// A damaged file, or one that does not fit the module or the optimizer.
    pub fn load<M: Module>(config: &TrainConfig, module: &M, path: &Path, device: &Device) -> Result<Self, ModelError> {
        let mut optimizer = Self::new(config);
        let mut tensors = read_tensors(path)?;
        for (name, parameter) in trained_parameters(module) {
            let mut take =
                |part: &'static str, len: usize| {
                    let full = format!("{name}.{part}");
                    let found = tensors.remove(&full);
                    let shape = found.as_ref().map_or("missing".to_owned(), |tensor| format!("of shape {:?}", tensor.shape));
                    found
                        .filter(|tensor| tensor.values.len() == len)
                        .map(|tensor| (part, tensor.values))
                        .ok_or_else(|| ModelError::Tensor { path: path.to_owned(), name: full, found: shape, expected: format!("[{len}]") })
                };
            let kind = kind_of(config, &name, parameter.shape.len());
            let expected = Memory::expected(config, kind, parameter.values.len());
            let parts = expected.into_iter().map(|(part, len)| take(part, len)).collect::<Result<Vec<_>, _>>()?;
            optimizer.memory.insert(name, Memory::from_parts(kind, &parameter.shape, parts, device));
        }
        if let Some(name) = tensors.into_keys().next() {
            return Err(ModelError::Tensor {
                path: path.to_owned(),
                name,
                found: "there".into(),
                expected: "no such tensor in this model".into(),
            });
        }
        Ok(optimizer)
    }
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Optimizer").field("config", &self.config).field("n_parameters", &self.memory.len()).finish_non_exhaustive()
    }
}

/// The update of every parameter, on its way through the module.
struct Step<'a> {
    optimizer: &'a mut Optimizer,
    grads: GradientsParams,
    lr: f64,
    scale: f64,
    path: Vec<String>,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let (id, tensor, mapper) = param.consume();
        let tensor = tensor.inner();
        let name = self.path.join(".");
        let Optimizer { config, memory } = self.optimizer;
        let kind = kind_of(config, &name, D);
        let (tensor, remembered) = update(config, kind, self.lr, tensor, grad, self.scale, memory.remove(&name));
        memory.insert(name, remembered);
        Param::from_mapped_value(id, Tensor::from_inner(tensor).require_grad(), mapper)
    }
}

/// The square root of the sum over all gradients of their squares; the sum over tensors is taken in f64.
fn global_norm<M: Module>(module: &M, grads: &GradientsParams) -> f64 {
    struct Squares<'a>(&'a GradientsParams, f64);
    impl ModuleVisitor for Squares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1 += self.0.get::<D>(param.id).map_or(0.0, sum_of_squares);
        }
    }
    let mut squares = Squares(grads, 0.0);
    module.visit(&mut squares);
    squares.1.sqrt()
}

/// Path of the first parameter whose gradient is not finite.
fn first_not_finite<M: Module>(module: &M, grads: &GradientsParams) -> String {
    struct Find<'a>(&'a GradientsParams, Vec<String>, Option<String>);
    impl ModuleVisitor for Find<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.1.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.2.is_none() && self.0.get::<D>(param.id).is_some_and(|grad| !sum_of_squares(grad).is_finite()) {
                self.2 = Some(self.1.join("."));
            }
        }
    }
    let mut find = Find(grads, Vec::new(), None);
    module.visit(&mut find);
    find.2.unwrap_or_else(|| "all parameters together".into())
}
