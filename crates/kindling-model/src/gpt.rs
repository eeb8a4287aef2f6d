//! GPT-2 (Radford et al. 2019), whole: embeddings, pre-norm blocks, causal attention, tanh-GELU, tied head or classification head,
//! loss, KV cache.
//! Not here: where weights come from on disk (`weights.rs`), how masks are drawn (`dropout.rs`).
//!
//! Shapes: B sequences, T tokens each, N = B·T, C = d_model, H heads of E = C / H, F = d_ff, V = vocabulary, or classes where the head
//! is one over classes, S = tokens that can be attended to. Linear layers see [N, C]: a weight gradient is then one matrix product.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Distillation, LoraTarget, ModelConfig, Pooling, Seed};
use kindling_kernels::{
    CachedRow, Dropout, KvTables, LossTerms, Mask, Precision, WeightFormat, causal_attention, dropout, embedding, gelu_linear, layer_norm,
    linear, linear_cross_entropy, linear_logits, linear_nats, nats_of_logits,
};

use crate::DropoutKey;
use crate::cache::{KvCache, Sequence};
use crate::init::Init;
use crate::lora::{Adapter, Lora};
use crate::packed::Packed;

/// Standard deviation of GPT-2's initial weights.
const INIT_STD: f64 = 0.02;
/// Rows of logits that a packed model scores at once.
const SCORED_AT_ONCE: usize = 256;

/// A GPT-2. Cloning it is cheap: tensors are shared.
#[derive(Module, Debug)]
pub struct Gpt {
    tok_embedding: Embedding, // [V, C], also the head
    pos_embedding: Embedding, // [context_len, C]
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    class_embedding: Option<Embedding>, // [n_classes, C]: where it is there, the head is this
    lora: Option<Adapter>,              // where it is there, all else is frozen
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    precision: Precision,
    #[module(skip)]
    packed: Option<Arc<Packed>>, // where it is there, the matrices are here and not above
}

#[derive(Module, Debug)]
struct Block {
    attn_norm: LayerNorm,
    attn: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,  // [C, 3C]: queries, keys, values
    proj: Linear, // [C, C]
    #[module(skip)]
    n_heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    up: Linear,   // [C, F]
    down: Linear, // [F, C]
}

/// What a forward pass does beside what its tokens say. By default nothing is dropped and a token sees all before it.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Which activations are dropped, as in training.
    pub dropout: Option<DropoutKey>,
    /// `[B, T]`: the place in the row where the document of each token begins; it sees nothing before that.
    pub document_starts: Option<Arc<[u32]>>,
    /// Whether positions are counted from there too, as if each document stood in a row of its own.
    pub restart_positions: bool,
    /// What the loss has beside the cross-entropy.
    pub terms: LossTerms,
    /// Another model that this one is held to.
    pub teacher: Option<Teacher>,
}

/// What another model says of the same tokens. The loss then has the Kullback-Leibler divergence from it too.
#[derive(Clone, Debug)]
pub struct Teacher {
    /// `[N, V]`, not tracked.
    pub logits: Tensor<2>,
    /// How much it counts, and how soft both are made.
    pub distillation: Distillation,
}

/// The loss of a batch as a sum and a weight, never only as a mean: means of unequal counts do not add up.
#[derive(Clone, Debug)]
pub struct Loss {
    /// `[1]`: sum over the batch of weight × negative log-likelihood, in nats.
    pub nats: Tensor<1>,
    /// `[1]`: sum of the weights, the count of tokens that count.
    pub weight: Tensor<1>,
}

impl Gpt {
    /// A model with GPT-2's initial weights: N(0, 0.02), the projections into the residual stream scaled by
    /// 1/sqrt(2·n_layers), norms at one, biases at zero. Weights follow from `seed` alone, on any device.
    ///
    /// # Panics
    /// If `config` was not validated, or its vocabulary is empty.
    pub fn new(config: &ModelConfig, seed: Seed, device: &Device) -> Self {
        assert!(config.validate().is_ok() && config.vocab_size > 0, "a model is made from a validated config with a vocabulary");
        let ModelConfig { n_layers, n_heads, d_model, d_ff, context_len, vocab_size, bias, norm_eps, .. } = *config;
        let init = Init { seed, device };
        let residual_std = INIT_STD / (2.0 * n_layers as f64).sqrt();
        let norm = || init.norm(d_model, bias, norm_eps);
        let block = |i: usize| Block {
            attn_norm: norm(),
            attn: Attention {
                qkv: init.linear(&format!("blocks.{i}.attn.qkv"), d_model, 3 * d_model, bias, INIT_STD),
                proj: init.linear(&format!("blocks.{i}.attn.proj"), d_model, d_model, bias, residual_std),
                n_heads,
            },
            mlp_norm: norm(),
            mlp: Mlp {
                up: init.linear(&format!("blocks.{i}.mlp.up"), d_model, d_ff, bias, INIT_STD),
                down: init.linear(&format!("blocks.{i}.mlp.down"), d_ff, d_model, bias, residual_std),
            },
        };
        Self {
            tok_embedding: init.embedding("tok_embedding", vocab_size, d_model, INIT_STD),
            pos_embedding: init.embedding("pos_embedding", context_len, d_model, INIT_STD),
            blocks: (0..n_layers).map(block).collect(),
            final_norm: norm(),
            class_embedding: class_embedding(config, &init),
            lora: None,
            config: config.clone(),
            precision: Precision::F32,
            packed: None,
        }
    }

    /// The same model with the head of `config`, which is of the same shape but for that: a fresh one over classes, or the tied one.
    ///
    /// # Panics
    /// If the shape is another one.
    #[must_use]
    pub fn with_head(self, config: &ModelConfig, seed: Seed) -> Self {
        let ModelConfig { dropout, n_classes, pooling, .. } = *config;
        assert_eq!(ModelConfig { dropout, n_classes, pooling, ..self.config.clone() }, *config, "a head alone is another");
        let class_embedding = class_embedding(config, &Init { seed, device: &self.device() });
        Self { class_embedding, config: config.clone(), ..self }
    }

    /// The same model, computing with factors of this precision where whole sequences go forward and backward.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same model with an adapter beside its weights, which are frozen: only the adapter is trained. The weights are shared, so that
    /// any number of adapters can stand beside one model; an adapter that this one has is replaced.
    ///
    /// # Panics
    /// If the adapter was made for another shape.
    #[must_use]
    pub fn with_adapter(&self, adapter: Adapter) -> Self {
        assert_eq!(adapter.blocks.len(), self.blocks.len(), "an adapter for each block");
        Self { lora: Some(adapter), ..self.without_adapter().no_grad() }
    }

    /// The same model without its adapter, if it has one.
    #[must_use]
    pub fn without_adapter(&self) -> Self {
        Self { lora: None, ..self.clone() }
    }

    /// The adapter, if the model has one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.lora.as_ref()
    }

    /// The same model for writing and scoring alone, its matrices laid out as kernels read them, and kept in this format. An adapter stays
    /// beside them as it is; the other parameters stay f32. It cannot be trained, merged or saved.
    ///
    /// # Panics
    /// If it is packed already.
    #[must_use]
    pub fn packed(&self, format: WeightFormat) -> Self {
        assert!(self.packed.is_none(), "a model is packed once");
        let mut model = self.valid();
        let take = |weight: &mut Param<Tensor<2>>| {
            let taken = weight.val();
            *weight = Param::from_tensor(Tensor::zeros([0, 0], &taken.device()));
            taken
        };
        let table = take(&mut model.tok_embedding.weight);
        let blocks = model.blocks.iter_mut().map(|block| {
            let Block { attn, mlp, .. } = block;
            [&mut attn.qkv, &mut attn.proj, &mut mlp.up, &mut mlp.down].map(|layer| take(&mut layer.weight))
        });
        let packed = Packed::new(table, blocks.collect(), format);
        Self { packed: Some(Arc::new(packed)), ..model }
    }

    /// Whether its matrices are packed.
    pub fn is_packed(&self) -> bool {
        self.packed.is_some()
    }

    /// Bytes that the matrices of a packed model take.
    pub fn packed_bytes(&self) -> Option<usize> {
        self.packed.as_ref().map(|packed| packed.n_bytes())
    }

    /// The same model, without autodiff, with its adapter folded into the weights: W + (alpha / rank)·A·B.
    #[must_use]
    pub fn merged(&self) -> Self {
        assert!(self.packed.is_none(), "weights that are packed are not changed");
        let mut model = self.valid();
        let Some(adapter) = model.lora.take() else { return model };
        for (block, adapter) in model.blocks.iter_mut().zip(&adapter.blocks) {
            let Block { attn, mlp, .. } = block;
            let layers = [&mut attn.qkv, &mut attn.proj, &mut mlp.up, &mut mlp.down];
            for (layer, target) in layers.into_iter().zip(LoraTarget::ALL) {
                if let Some(lora) = adapter.of(target) {
                    layer.weight = Param::from_tensor(layer.weight.val() + lora.product());
                }
            }
        }
        model
    }

    /// The shape that the model was made with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The token embedding, `[V, C]`.
    pub fn token_embedding(&self) -> Tensor<2> {
        match &self.packed {
            Some(packed) => packed.table.weight().transpose(),
            None => self.tok_embedding.weight.val(),
        }
    }

    /// The device that the weights are on.
    pub fn device(&self) -> Device {
        self.tok_embedding.weight.val().device()
    }

    /// Ids `[B, T]` to logits `[B, T, V]`.
    ///
    /// # Panics
    /// If T is above `context_len`.
    pub fn forward(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<3> {
        let [b, t] = ids.dims();
        let logits = self.head(self.hidden(ids, pass));
        let v = logits.dims()[1];
        logits.reshape([b, t, v])
    }

    /// Ids `[B, T]` to what the head sees of them, `[N, C]`: the residual stream behind the last norm, pooled where the head asks for it.
    ///
    /// # Panics
    /// If T is above `context_len`.
    pub fn hidden(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<2> {
        let n_rows = ids.dims()[0];
        self.pool(norm(&self.final_norm, self.residual(ids, pass), &self.config), n_rows, pass)
    }

    /// The loss of predicting `targets` `[B, T]` from `ids` `[B, T]`; `weights` `[B, T]` is 0 where a target does not count.
    pub fn loss(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, weights: Tensor<2>, pass: &Pass) -> Loss {
        self.leave(self.residual(ids, pass), targets, weights, pass)
    }

    /// The first stage of [`Gpt::loss`], which the blocks and [`Gpt::leave`] follow: ids `[B, T]` to the residual stream `[N, C]`.
    ///
    /// # Panics
    /// If T is above `context_len`.
    pub fn enter(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<2> {
        let [b, t] = ids.dims();
        assert!(t <= self.config.context_len, "{t} tokens fit the context of {}", self.config.context_len);
        let positions: Tensor<2, Int> = match pass.document_starts.as_deref().filter(|_| pass.restart_positions) {
            Some(starts) => {
                let positions: Vec<i64> = starts.iter().enumerate().map(|(i, start)| (i % t) as i64 - i64::from(*start)).collect();
                Tensor::from_data(TensorData::new(positions, [b, t]), &ids.device())
            }
            None => Tensor::arange(0..t as i64, &ids.device()).reshape([1, t]).repeat_dim(0, b),
        };
        let p = &self.config.dropout;
        let words = pass.dropout.filter(|_| p.word > 0.0).map(|key| {
            let seen = Tensor::<2>::from_data(TensorData::new(key.words(p.word, b, t), [b * t, 1]), &self.device());
            seen.expand([b * t, self.config.d_model])
        });
        drop_at(self.embed(ids, positions, words), pass, 0, p.embedding, p.variational, b)
    }

    /// One block of `n_rows` sequences: the residual stream `[N, C]` before and after it.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn block(&self, layer: usize, x: Tensor<2>, n_rows: usize, pass: &Pass) -> Tensor<2> {
        let (block, p, precision) = (&self.blocks[layer], &self.config.dropout, self.precision);
        // What is dropped at a site of the model, numbered in the order of the forward pass.
        let site = 1 + 3 * layer as u64;
        let qkv = self.project(layer, LoraTarget::Qkv, norm(&block.attn_norm, x.clone(), &self.config), precision); // [N, 3C]
        let mask = Mask { first: pass.document_starts.clone(), dropout: pass.dropout(site, p.attention, false, n_rows) };
        let y = self.project(layer, LoraTarget::Proj, causal_attention(qkv, n_rows, block.attn.n_heads, &mask), precision);
        let x = x + drop_at(y, pass, site + 1, p.residual, p.variational, n_rows);
        let y = self.mlp(layer, norm(&block.mlp_norm, x.clone(), &self.config), precision);
        x + drop_at(y, pass, site + 2, p.residual, p.variational, n_rows)
    }

    /// The last stage of [`Gpt::loss`]: the residual stream `[N, C]` behind the last block to the loss.
    pub fn leave(&self, x: Tensor<2>, targets: Tensor<2, Int>, weights: Tensor<2>, pass: &Pass) -> Loss {
        let (n, n_rows) = (x.dims()[0], targets.dims()[0]);
        let x = self.pool(norm(&self.final_norm, x, &self.config), n_rows, pass);
        let weights = weights.reshape([n]);
        let divergence = pass.teacher.as_ref().map(|teacher| (self.divergence(x.clone(), teacher) * weights.clone()).sum());
        let nats = linear_cross_entropy(x, self.output(), targets.reshape([n]), weights.clone(), pass.terms, self.precision);
        let nats = divergence.into_iter().fold(nats, |nats, divergence| nats + divergence);
        Loss { nats, weight: weights.sum() }
    }

    /// Weight × T² × KL(teacher ‖ model) at each place, both at temperature T, `[N]`, of the normalised residual stream `[N, C]`.
    fn divergence(&self, x: Tensor<2>, teacher: &Teacher) -> Tensor<1> {
        let Distillation { weight, temperature } = teacher.distillation;
        let n = x.dims()[0];
        let log_p = log_softmax(self.head(x) / temperature, 1); // [N, V]
        let log_q = log_softmax(teacher.logits.clone() / temperature, 1);
        (log_q.clone().exp() * (log_q - log_p)).sum_dim(1).reshape([n]) * (weight * temperature * temperature)
    }

    /// Logits `[P, V]` at some `places` of ids `[B, T]`, counted row by row.
    ///
    /// # Panics
    /// If T is above `context_len`, or there is no such place.
    pub fn logits_at(&self, ids: Tensor<2, Int>, places: &[usize]) -> Tensor<2> {
        self.head(self.hidden_at(ids, places, &Pass::default()))
    }

    /// The negative log-likelihood of a target at each of some `places` of ids `[B, T]`, counted row by row, in nats, and its rank among all
    /// tokens, of which the likeliest has 0: both `[P]`.
    ///
    /// # Panics
    /// If T is above `context_len`, or there is no such place or id.
    pub fn score(&self, ids: Tensor<2, Int>, places: &[usize], targets: &[u32], pass: &Pass) -> (Tensor<1>, Tensor<1, Int>) {
        let targets: Vec<i64> = targets.iter().map(|id| i64::from(*id)).collect();
        let targets = Tensor::from_data(TensorData::new(targets, [places.len()]), &ids.device());
        let hidden = self.hidden_at(ids, places, pass);
        if self.packed.is_none() {
            return linear_nats(hidden, self.output(), targets);
        }
        // A few rows at a time, so that logits need not all exist.
        let of = |from: usize| {
            let rows = from..places.len().min(from + SCORED_AT_ONCE);
            nats_of_logits(self.head(hidden.clone().narrow(0, from, rows.len())), targets.clone().narrow(0, from, rows.len()))
        };
        let (nats, ranks) = (0..places.len()).step_by(SCORED_AT_ONCE).map(of).unzip();
        (Tensor::cat(nats, 0), Tensor::cat(ranks, 0))
    }

    /// What the head sees at some places, `[P, C]`.
    fn hidden_at(&self, ids: Tensor<2, Int>, places: &[usize], pass: &Pass) -> Tensor<2> {
        let (device, n, [b, t]) = (ids.device(), places.len(), ids.dims());
        if n == b * t && places.iter().enumerate().all(|(i, place)| i == *place) {
            return self.hidden(ids, pass);
        }
        let places: Vec<i64> = places.iter().map(|place| *place as i64).collect();
        self.hidden(ids, pass).select(0, Tensor::from_data(TensorData::new(places, [n]), &device))
    }

    /// The adapter beside a linear layer, if it has one.
    fn lora_of(&self, layer: usize, target: LoraTarget) -> Option<&Lora> {
        self.lora.as_ref()?.blocks[layer].of(target)
    }

    /// A linear layer of a block, with GELU before the last, and the adapter beside it.
    fn project(&self, layer: usize, target: LoraTarget, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let Block { attn, mlp, .. } = &self.blocks[layer];
        let (linear_layer, gelu) = match target {
            LoraTarget::Qkv => (&attn.qkv, false),
            LoraTarget::Proj => (&attn.proj, false),
            LoraTarget::Up => (&mlp.up, false),
            LoraTarget::Down => (&mlp.down, true),
        };
        let added = self.lora_of(layer, target).map(|lora| {
            let x = x.clone();
            if gelu { lora.forward_gelu(x, precision) } else { lora.forward(x, precision) }
        });
        let bias = linear_layer.bias.as_ref().map(|bias| bias.val());
        let y = match &self.packed {
            Some(packed) => packed.of(layer, target).linear(x, bias, gelu),
            None if gelu => gelu_linear(x, linear_layer.weight.val(), bias, precision),
            None => linear(x, linear_layer.weight.val(), bias, precision),
        };
        added.into_iter().fold(y, |y, added| y + added)
    }

    /// The second half of a block.
    fn mlp(&self, layer: usize, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        self.project(layer, LoraTarget::Down, self.project(layer, LoraTarget::Up, x, precision), precision)
    }

    /// The residual stream `[N, C]` behind the last block.
    fn residual(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<2> {
        let n_rows = ids.dims()[0];
        (0..self.blocks.len()).fold(self.enter(ids, pass), |x, layer| self.block(layer, x, n_rows, pass))
    }

    /// The sum of token embeddings, times what `words` `[N, C]` says of each, and position embeddings: ids and positions `[B, T]` to `[N, C]`.
    fn embed(&self, ids: Tensor<2, Int>, positions: Tensor<2, Int>, words: Option<Tensor<2>>) -> Tensor<2> {
        let n = ids.dims().iter().product::<usize>();
        let positions = embedding(self.pos_embedding.weight.val(), positions.reshape([n]));
        let tokens = match &self.packed {
            Some(packed) => packed.table.rows(ids.reshape([n])),
            None => embedding(self.tok_embedding.weight.val(), ids.reshape([n])),
        };
        words.into_iter().fold(tokens, |tokens, seen| tokens * seen) + positions
    }

    /// What the head reads at each place of `n_rows` sequences, from `x` `[N, C]`: that place, or the mean over its document up to it.
    fn pool(&self, x: Tensor<2>, n_rows: usize, pass: &Pass) -> Tensor<2> {
        if self.class_embedding.is_none() || self.config.pooling == Pooling::Last {
            return x;
        }
        // Attention whose scores are all 0 takes the mean of what it may see.
        let none = x.zeros_like();
        let mask = Mask { first: pass.document_starts.clone(), dropout: None };
        causal_attention(Tensor::cat(vec![none.clone(), none, x], 1), n_rows, 1, &mask)
    }

    /// `[V, C]`: the weight of the head.
    fn output(&self) -> Tensor<2> {
        self.class_embedding.as_ref().map_or_else(|| self.token_embedding(), |classes| classes.weight.val())
    }

    /// `[N, C]` to logits `[N, V]`.
    fn head(&self, x: Tensor<2>) -> Tensor<2> {
        match (&self.class_embedding, &self.packed) {
            (None, Some(packed)) => packed.table.linear(x, None, false),
            _ => linear_logits(x, self.output()),
        }
    }

    /// An empty cache. A model of packed weights that are not f32 keeps keys and values as bf16, where they can be.
    pub fn cache(&self) -> KvCache {
        let ModelConfig { n_layers, n_heads, d_model, .. } = self.config;
        let precision = self.packed.as_ref().map_or(Precision::F32, |packed| packed.table.format().precision());
        KvCache::new(KvTables::new(n_layers, n_heads, d_model, precision, &self.device()))
    }

    /// Steps each sequence by its own new tokens, of which it has at least one. Gives the logits `[B, V]` after the last of each.
    ///
    /// # Panics
    /// As [`Self::hidden_cached`].
    pub fn forward_cached(&self, steps: &mut [(&mut Sequence, &[u32])], cache: &mut KvCache) -> Tensor<2> {
        let mut n = 0;
        let last: Vec<usize> = steps.iter().map(|(_, new)| (n += new.len(), n - 1).1).collect();
        self.logits_of(self.hidden_cached(steps, cache), &last)
    }

    /// Steps each sequence by its own new tokens, of which it has at least one. Gives what the head sees at each of them, `[N, C]`, sequence by
    /// sequence.
    ///
    /// # Panics
    /// If a sequence has no new token, would grow beyond `context_len`, or is of another cache.
    pub fn hidden_cached(&self, steps: &mut [(&mut Sequence, &[u32])], cache: &mut KvCache) -> Tensor<2> {
        let (context_len, device) = (self.config.context_len, self.device());
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (sequence, new) in steps.iter_mut() {
            let seen = sequence.len();
            assert!(!new.is_empty() && seen + new.len() <= context_len, "{} tokens after {seen} fit the context", new.len());
            ids.extend(new.iter().map(|id| i64::from(*id)));
            positions.extend((seen..seen + new.len()).map(|position| position as i64));
            cache.extend(sequence, new.len());
        }
        cache.grow();
        let n = ids.len();
        let rows: Vec<CachedRow<'_>> =
            steps.iter().map(|(sequence, new)| CachedRow { slots: sequence.slots(), n_new: new.len() }).collect();
        let ints = |values: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(values, [1, n]), &device);
        let mut x = self.embed(ints(ids), ints(positions), None); // [N, C]
        for (layer, block) in self.blocks.iter().enumerate() {
            let qkv = self.project(layer, LoraTarget::Qkv, norm(&block.attn_norm, x.clone(), &self.config), Precision::F32);
            let y = cache.tables.attend(layer, qkv, &rows);
            x = x + self.project(layer, LoraTarget::Proj, y, Precision::F32);
            x = x.clone() + self.mlp(layer, norm(&block.mlp_norm, x, &self.config), Precision::F32);
        }
        norm(&self.final_norm, x, &self.config)
    }

    /// The logits `[P, V]` at some `places` of what the head sees, `[N, C]`.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn logits_of(&self, hidden: Tensor<2>, places: &[usize]) -> Tensor<2> {
        let n = places.len();
        let places: Vec<i64> = places.iter().map(|place| *place as i64).collect();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [n]), &hidden.device());
        self.head(hidden.select(0, places))
    }
}

impl Pass {
    fn dropout(&self, site: u64, p: f64, one_mask: bool, n_rows: usize) -> Option<Arc<Dropout>> {
        self.dropout.and_then(|key| key.dropout(site, p, one_mask, n_rows))
    }
}

/// Drops of `x` `[N, C]`, of `n_rows` sequences, what the pass says for a site.
fn drop_at(x: Tensor<2>, pass: &Pass, site: u64, p: f64, one_mask: bool, n_rows: usize) -> Tensor<2> {
    match pass.dropout(site, p, one_mask, n_rows) {
        Some(dropped) => dropout(x, &dropped),
        None => x,
    }
}

fn class_embedding(config: &ModelConfig, init: &Init<'_>) -> Option<Embedding> {
    (config.n_classes > 0).then(|| init.embedding("class_embedding", config.n_classes, config.d_model, INIT_STD))
}

fn norm(layer: &LayerNorm, x: Tensor<2>, config: &ModelConfig) -> Tensor<2> {
    layer_norm(x, layer.gamma.val(), layer.beta.as_ref().map(|beta| beta.val()), config.norm_eps)
}
