//! One step of one parameter, by the optimizer that its kind has. Knows no module and no files.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdjustLrFn, LionConfig, LionState, MuonConfig, MuonState, Optimizer as _, RecordState, SgdConfig, SgdState, StateSink, StateSource,
    decay::WeightDecayConfig,
};
use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::{Optimizer, TrainConfig};
use kindling_kernels::{adamw, adamw_step};
use kindling_model::weights::HostTensor;

/// What an optimizer remembers of one parameter; flat where each value is updated by itself, so that one type holds every rank.
pub(super) enum Memory {
    AdamW { time: usize, first: Tensor<1>, second: Tensor<1> },
    Muon(MuonState<2>),
    Lion(LionState<1>),
    Sgd(SgdState<1>),
}

/// Which optimizer a parameter has. Muon is for matrices between hidden activations: not for embeddings, norms and biases, nor for
/// the two factors of an adapter, below `lora.`, whose product is what acts on activations.
pub(super) fn kind_of(config: &TrainConfig, path: &str, n_dims: usize) -> Optimizer {
    match config.optimizer {
        Optimizer::Muon if !(n_dims == 2 && path.starts_with("blocks.")) => Optimizer::AdamW,
        kind => kind,
    }
}

/// A step with the gradient times `scale`. A memory of another kind than `kind` counts as none.
pub(super) fn update<const D: usize>(
    config: &TrainConfig,
    kind: Optimizer,
    lr: f64,
    tensor: Tensor<D>,
    grad: Tensor<D>,
    scale: f64,
    memory: Option<Memory>,
) -> (Tensor<D>, Memory) {
    let shape = tensor.dims();
    let n = shape.iter().product::<usize>();
    // Matrices decay; norms and biases, which have one dimension, do not.
    let weight_decay = if D >= 2 { config.weight_decay } else { 0.0 };
    let momentum = |nesterov| MomentumConfig { momentum: config.momentum, dampening: 0.0, nesterov };
    if kind == Optimizer::AdamW {
        let (time, moments) = match memory {
            Some(Memory::AdamW { time, first, second }) => {
                (time + 1, Some(adamw::Moments { first: first.reshape(shape), second: second.reshape(shape) }))
            }
            _ => (1, None),
        };
        let TrainConfig { beta_1, beta_2, epsilon, .. } = *config;
        let step = adamw::Step { lr, beta_1, beta_2, epsilon, weight_decay, time, grad_scale: scale };
        let (tensor, moments) = adamw_step(tensor, grad, moments, &step);
        return (tensor, Memory::AdamW { time, first: moments.first.reshape([n]), second: moments.second.reshape([n]) });
    }
    let grad = if scale == 1.0 { grad } else { grad * scale };
    const KEPT: &str = "this optimizer always gives a state back";
    match kind {
        Optimizer::Muon => {
            let muon = MuonConfig::new()
                .with_weight_decay(Some(WeightDecayConfig { penalty: weight_decay as f32 }))
                .with_momentum(momentum(true))
                .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
                .build();
            let state = memory.and_then(|memory| if let Memory::Muon(state) = memory { Some(state) } else { None });
            let matrix = [shape[0], n / shape[0]];
            let (tensor, state) = muon.step(lr, tensor.reshape(matrix), grad.reshape(matrix), state);
            (tensor.reshape(shape), Memory::Muon(state.expect(KEPT)))
        }
        Optimizer::Lion => {
            let lion = LionConfig::new()
                .with_beta_1(config.beta_1 as f32)
                .with_beta_2(config.beta_2 as f32)
                .with_weight_decay(weight_decay as f32)
                .build();
            let state = memory.and_then(|memory| if let Memory::Lion(state) = memory { Some(state) } else { None });
            let (tensor, state) = lion.step(lr, tensor.reshape([n]), grad.reshape([n]), state);
            (tensor.reshape(shape), Memory::Lion(state.expect(KEPT)))
        }
        Optimizer::Sgd | Optimizer::AdamW => {
            let sgd = SgdConfig::new().with_momentum((config.momentum > 0.0).then(|| momentum(false))).build();
            let state = memory.and_then(|memory| if let Memory::Sgd(state) = memory { Some(state) } else { None });
            // Burn's decay is part of the gradient and goes into the momentum; here it is decoupled, as everywhere else.
            let decayed = if weight_decay == 0.0 { tensor } else { tensor * (1.0 - lr * weight_decay) };
            let (tensor, state) = sgd.step(lr, decayed.reshape([n]), grad.reshape([n]), state);
            (tensor.reshape(shape), Memory::Sgd(state.expect(KEPT)))
        }
    }
}

impl Memory {
    /// Its parts by name, such as `first_moment`.
    pub(super) fn parts(&self) -> Vec<(String, HostTensor)> {
        let mut sink = StateSink::default();
        match self {
            Self::AdamW { time, first, second } => {
                // A step count is exact in f32 up to 2^24; two halves keep it exact beyond.
                let time = vec![(time >> 16) as f32, (time & 0xffff) as f32];
                return vec![
                    ("first_moment".into(), kindling_model::weights::to_host(first.clone())),
                    ("second_moment".into(), kindling_model::weights::to_host(second.clone())),
                    ("time".into(), HostTensor { shape: vec![2], values: time }),
                ];
            }
            Self::Muon(state) => state.state_flatten("", &mut sink),
            Self::Lion(state) => state.state_flatten("", &mut sink),
            Self::Sgd(state) => state.state_flatten("", &mut sink),
        }
        let host = |data: TensorData| HostTensor {
            shape: data.shape().to_vec(),
            values: data.convert::<f32>().try_into_vec().expect("converted to f32"),
        };
        sink.tensors.into_iter().map(|(name, data)| (name, host(data))).collect()
    }

    /// The names of the parts that a parameter has, and how many values each.
    pub(super) fn expected(config: &TrainConfig, kind: Optimizer, n: usize) -> Vec<(&'static str, usize)> {
        match kind {
            Optimizer::AdamW => vec![("first_moment", n), ("second_moment", n), ("time", 2)],
            Optimizer::Muon => vec![("momentum.velocity", n)],
            Optimizer::Lion => vec![("momentum", n)],
            Optimizer::Sgd if config.momentum > 0.0 => vec![("momentum.velocity", n)],
            Optimizer::Sgd => vec![],
        }
    }

    /// From parts as [`expected`](Self::expected) names them, for a parameter of a shape.
    pub(super) fn from_parts(kind: Optimizer, shape: &[usize], parts: Vec<(&'static str, Vec<f32>)>, device: &Device) -> Self {
        let n = shape.iter().product::<usize>();
        if kind == Optimizer::AdamW {
            let mut parts = parts.into_iter().map(|(_, values)| values);
            let mut next = || parts.next().expect("as many as expected");
            let mut tensor = || Tensor::from_data(TensorData::new(next(), [n]), device);
            let (first, second) = (tensor(), tensor());
            let time = next();
            return Self::AdamW { time: ((time[0] as usize) << 16) + time[1] as usize, first, second };
        }
        let mut source = StateSource::default();
        let shape = if kind == Optimizer::Muon { vec![shape[0], n / shape[0]] } else { vec![n] };
        for (name, values) in parts {
            source.insert_tensor(name.to_owned(), TensorData::new(values, shape.clone()));
        }
        const FITS: &str = "the parts are those that are expected";
        match kind {
            Optimizer::Muon => Self::Muon(RecordState::state_unflatten("", &mut source, device).expect(FITS)),
            Optimizer::Lion => Self::Lion(RecordState::state_unflatten("", &mut source, device).expect(FITS)),
            Optimizer::Sgd | Optimizer::AdamW => Self::Sgd(RecordState::state_unflatten("", &mut source, device).expect(FITS)),
        }
    }
}
