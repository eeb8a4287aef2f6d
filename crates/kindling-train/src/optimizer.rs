//! AdamW over a module, with decay groups, a global norm, and moments that are kept by parameter path.
//!
//! The update of one tensor is [`kindling_kernels::adamw_step`]. Burn's module optimizer is not used: it keys its state by
//! parameter ids, which weights files do not carry, clips each tensor apart, and silently skips state it cannot read.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::TrainConfig;
use kindling_kernels::{adamw, adamw_step, sum_of_squares};
use kindling_model::ModelError;
use kindling_model::weights::{HostTensor, read_tensors, to_host, write_tensors};

/// AdamW (Loshchilov and Hutter 2019). Matrices decay; norms and biases, which have one dimension, do not.
pub struct AdamW {
    config: TrainConfig,
    moments: BTreeMap<String, Moments>,
}

/// The running moments of one parameter, flat, so that one type holds every rank.
struct Moments {
    time: usize,
    first: Tensor<1>,
    second: Tensor<1>,
}

/// A gradient that is NaN or infinite.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// Path of the first parameter whose gradient it is.
    pub parameter: String,
}

impl AdamW {
    /// An optimizer without moments.
    pub fn new(config: &TrainConfig) -> Self {
        Self { config: config.clone(), moments: BTreeMap::new() }
    }

    /// Takes one step and gives back the module and the global norm of the gradients before clipping.
    ///
    /// # Errors
    /// [`NotFinite`] if a gradient is NaN or infinite; nothing has changed then.
    pub fn step<M: Module>(&mut self, lr: f64, module: M, grads: GradientsParams) -> Result<(M, f64), NotFinite> {
        let norm = global_norm(&module, &grads);
        if !norm.is_finite() {
            return Err(NotFinite { parameter: first_not_finite(&module, &grads) });
        }
        // As torch's clip_grad_norm_: the small number keeps a norm of zero harmless.
        let clip = self.config.grad_clip;
        let scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let module = module.map(&mut Step { optimizer: self, grads, lr, scale, path: Vec::new() });
        Ok((module, norm))
    }

    /// Writes the moments, under the parameters' paths, and syncs the file.
    ///
    /// # Errors
    /// I/O with the path.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let tensors = self.moments.iter().flat_map(|(name, moments)| {
            // A step count is exact in f32 up to 2^24; two halves keep it exact beyond.
            let time = [(moments.time >> 16) as f32, (moments.time & 0xffff) as f32];
            [
                (format!("{name}.first_moment"), to_host(moments.first.clone())),
                (format!("{name}.second_moment"), to_host(moments.second.clone())),
                (format!("{name}.time"), HostTensor { shape: vec![2], values: time.to_vec() }),
            ]
        });
        write_tensors(tensors.collect::<Vec<_>>(), path)
    }

    /// Reads moments back. Every parameter of `module` must have some, of its own size.
    ///
    /// # Errors
    /// A damaged file, or one that does not fit the module.
    pub fn load<M: Module>(config: &TrainConfig, module: &M, path: &Path, device: &Device) -> Result<Self, ModelError> {
        let mut optimizer = Self::new(config);
        let mut tensors = read_tensors(path)?;
        for (name, parameter) in kindling_model::weights::named_parameters(module) {
            let mut take = |part: &str, len: usize| {
                let full = format!("{name}.{part}");
                let found = tensors.remove(&full);
                let shape = found.as_ref().map_or("missing".to_owned(), |tensor| format!("of shape {:?}", tensor.shape));
                found.filter(|tensor| tensor.values.len() == len).map(|tensor| tensor.values).ok_or_else(|| ModelError::Tensor {
                    path: path.to_owned(),
                    name: full,
                    found: shape,
                    expected: format!("[{len}]"),
                })
            };
            let n = parameter.values.len();
            let (first, second, time) = (take("first_moment", n)?, take("second_moment", n)?, take("time", 2)?);
            let tensor = |values| Tensor::from_data(TensorData::new(values, [n]), device);
            let time = ((time[0] as usize) << 16) + time[1] as usize;
            optimizer.moments.insert(name, Moments { time, first: tensor(first), second: tensor(second) });
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

impl std::fmt::Debug for AdamW {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdamW").field("config", &self.config).field("n_parameters", &self.moments.len()).finish_non_exhaustive()
    }
}

/// The update of every parameter, on its way through the module.
struct Step<'a> {
    optimizer: &'a mut AdamW,
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
        let shape = tensor.dims();
        let n = shape.iter().product::<usize>();
        let name = self.path.join(".");
        let state = self.optimizer.moments.remove(&name);
        let time = 1 + state.as_ref().map_or(0, |state| state.time);
        let moments =
            state.map(|Moments { first, second, .. }| adamw::Moments { first: first.reshape(shape), second: second.reshape(shape) });
        let TrainConfig { beta_1, beta_2, epsilon, weight_decay, .. } = self.optimizer.config;
        let weight_decay = if D >= 2 { weight_decay } else { 0.0 };
        let step = adamw::Step { lr: self.lr, beta_1, beta_2, epsilon, weight_decay, time, grad_scale: self.scale };
        let (tensor, moments) = adamw_step(tensor, grad, moments, &step);
        let moments = Moments { time, first: moments.first.reshape([n]), second: moments.second.reshape([n]) };
        self.optimizer.moments.insert(name, moments);
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
