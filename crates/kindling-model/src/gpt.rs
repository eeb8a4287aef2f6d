//! GPT-2 (Radford et al. 2019), whole: embeddings, pre-norm blocks, causal attention, tanh-GELU, tied head, loss, KV cache.
//! Not here: where weights come from on disk (`weights.rs`), how masks are drawn (`dropout.rs`).
//!
//! Shapes: B sequences, T tokens each, N = B·T, C = d_model, H heads of E = C / H, F = d_ff, V = vocabulary, S = tokens
//! that can be attended to. Linear layers see [N, C]: a weight gradient is then one matrix product.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Distillation, LoraTarget, ModelConfig, Seed};
use kindling_kernels::{
    Dropout, LossTerms, Mask, Precision, causal_attention, dropout, embedding, gelu_linear, layer_norm, linear, linear_cross_entropy,
    linear_nats,
};

use crate::DropoutKey;
use crate::init::Init;
use crate::lora::{Adapter, Lora};

/// Standard deviation of GPT-2's initial weights.
const INIT_STD: f64 = 0.02;
/// Added to the score of a token that must not be seen: its probability becomes exactly 0, and unlike infinity it is
/// safe on GPUs that assume finite arithmetic.
const MASKED: f32 = -1e9;

/// A GPT-2. Cloning it is cheap: tensors are shared.
#[derive(Module, Debug)]
pub struct Gpt {
    tok_embedding: Embedding, // [V, C], also the head
    pos_embedding: Embedding, // [context_len, C]
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    lora: Option<Adapter>, // where it is there, all else is frozen
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    precision: Precision,
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

/// Keys and values of what each sequence has seen, and how many tokens that is.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<(Tensor<4>, Tensor<4>)>, // keys and values, each [B, H, context_len, E]
    lengths: Vec<usize>,
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
            lora: None,
            config: config.clone(),
            precision: Precision::F32,
        }
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

    /// The same model, without autodiff, with its adapter folded into the weights: W + (alpha / rank)·A·B.
    #[must_use]
    pub fn merged(&self) -> Self {
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
        self.head(self.hidden(ids, pass)).reshape([b, t, self.config.vocab_size])
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
        drop_at(self.embed(ids, positions), pass, 0, self.config.dropout.embedding, self.config.dropout.variational, b)
    }

    /// One block of `n_rows` sequences: the residual stream `[N, C]` before and after it.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn block(&self, layer: usize, x: Tensor<2>, n_rows: usize, pass: &Pass) -> Tensor<2> {
        let (block, lora, p) = (&self.blocks[layer], |target| self.lora_of(layer, target), &self.config.dropout);
        // What is dropped at a site of the model, numbered in the order of the forward pass.
        let site = 1 + 3 * layer as u64;
        let qkv = project(&block.attn.qkv, lora(LoraTarget::Qkv), norm(&block.attn_norm, x.clone(), &self.config), self.precision); // [N, 3C]
        let mask = Mask { first: pass.document_starts.clone(), dropout: pass.dropout(site, p.attention, false, n_rows) };
        let y = project(&block.attn.proj, lora(LoraTarget::Proj), causal_attention(qkv, n_rows, block.attn.n_heads, &mask), self.precision);
        let x = x + drop_at(y, pass, site + 1, p.residual, p.variational, n_rows);
        let y = block.mlp.forward(
            [lora(LoraTarget::Up), lora(LoraTarget::Down)],
            norm(&block.mlp_norm, x.clone(), &self.config),
            self.precision,
        );
        x + drop_at(y, pass, site + 2, p.residual, p.variational, n_rows)
    }

    /// The last stage of [`Gpt::loss`]: the residual stream `[N, C]` behind the last block to the loss.
    pub fn leave(&self, x: Tensor<2>, targets: Tensor<2, Int>, weights: Tensor<2>, pass: &Pass) -> Loss {
        let n = x.dims()[0];
        let x = norm(&self.final_norm, x, &self.config);
        let weights = weights.reshape([n]);
        let divergence = pass.teacher.as_ref().map(|teacher| (self.divergence(x.clone(), teacher) * weights.clone()).sum());
        let nats =
            linear_cross_entropy(x, self.tok_embedding.weight.val(), targets.reshape([n]), weights.clone(), pass.terms, self.precision);
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

    /// The negative log-likelihood of each target, in nats, and the likeliest token in its place: both `[N]`, row by row.
    pub fn score(&self, ids: Tensor<2, Int>, targets: Tensor<2, Int>, pass: &Pass) -> (Tensor<1>, Tensor<1, Int>) {
        let x = self.hidden(ids, pass); // [N, C]
        let n = x.dims()[0];
        linear_nats(x, self.tok_embedding.weight.val(), targets.reshape([n]))
    }

    /// The adapter beside a linear layer, if it has one.
    fn lora_of(&self, layer: usize, target: LoraTarget) -> Option<&Lora> {
        self.lora.as_ref()?.blocks[layer].of(target)
    }

    /// Everything before the head: ids `[B, T]` to the normalised residual stream `[N, C]`.
    fn hidden(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<2> {
        norm(&self.final_norm, self.residual(ids, pass), &self.config)
    }

    /// The residual stream `[N, C]` behind the last block.
    fn residual(&self, ids: Tensor<2, Int>, pass: &Pass) -> Tensor<2> {
        let n_rows = ids.dims()[0];
        (0..self.blocks.len()).fold(self.enter(ids, pass), |x, layer| self.block(layer, x, n_rows, pass))
    }

    /// The sum of token and position embeddings: ids and positions `[B, T]` to `[N, C]`.
    fn embed(&self, ids: Tensor<2, Int>, positions: Tensor<2, Int>) -> Tensor<2> {
        let n = ids.dims().iter().product::<usize>();
        let positions = embedding(self.pos_embedding.weight.val(), positions.reshape([n]));
        embedding(self.tok_embedding.weight.val(), ids.reshape([n])) + positions
    }

    /// `[N, C]` to logits `[N, V]`, by the token embedding.
    fn head(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.tok_embedding.weight.val().transpose())
    }

    /// An empty cache for `n_rows` sequences.
    pub fn cache(&self, n_rows: usize) -> KvCache {
        let ModelConfig { n_heads, d_model, context_len, .. } = self.config;
        let empty = || Tensor::zeros([n_rows, n_heads, context_len, d_model / n_heads], &self.device());
        KvCache { layers: self.blocks.iter().map(|_| (empty(), empty())).collect(), lengths: vec![0; n_rows] }
    }

    /// Steps every sequence of the cache by its own number of new tokens: of row b of `ids` `[B, T]` the first
    /// `n_new[b]` are taken, at least one; what follows them is padding. Gives the logits `[B, V]` after each row's last.
    ///
    /// # Panics
    /// If a row has no new token or more than T, or would grow beyond `context_len`.
    pub fn forward_cached(&self, ids: Tensor<2, Int>, n_new: &[usize], cache: &mut KvCache) -> Tensor<2> {
        let [b, t] = ids.dims();
        let context_len = self.config.context_len;
        assert!(n_new.len() == b && cache.lengths.len() == b, "one count a row");
        for (n, seen) in n_new.iter().zip(&cache.lengths) {
            assert!((1..=t).contains(n) && seen + n <= context_len, "{n} of {t} tokens after {seen} fit the context of {context_len}");
        }
        let device = ids.device();
        let total = cache.lengths.iter().zip(n_new).map(|(seen, n)| seen + n).max().unwrap_or(0);
        // Padding stands at the last position at most: its results are never read.
        let positions: Vec<i64> =
            cache.lengths.iter().flat_map(|seen| (0..t).map(move |i| (seen + i).min(context_len - 1) as i64)).collect();
        let positions = Tensor::<2, Int>::from_data(TensorData::new(positions, [b, t]), &device);
        let mask = cached_mask(&cache.lengths, t, total, &self.device());
        let mut x = self.embed(ids, positions); // [N, C]
        for (layer, (block, (keys, values))) in self.blocks.iter().zip(&mut cache.layers).enumerate() {
            let lora = |target| self.lora_of(layer, target);
            let (q, k, v) = block.attn.split(lora(LoraTarget::Qkv), norm(&block.attn_norm, x.clone(), &self.config), b);
            keys.inplace(|keys| store(keys, k, &cache.lengths, n_new));
            values.inplace(|values| store(values, v, &cache.lengths, n_new));
            let (k, v) = (keys.clone().slice_dim(2, 0..total), values.clone().slice_dim(2, 0..total)); // [B, H, S, E]
            x = x + block.attn.attend(lora(LoraTarget::Proj), q, k, v, mask.clone());
            x = x.clone()
                + block.mlp.forward([lora(LoraTarget::Up), lora(LoraTarget::Down)], norm(&block.mlp_norm, x, &self.config), Precision::F32);
        }
        for (seen, n) in cache.lengths.iter_mut().zip(n_new) {
            *seen += n;
        }
        let last: Vec<i64> = n_new.iter().enumerate().map(|(row, n)| (row * t + n - 1) as i64).collect();
        let last = Tensor::<1, Int>::from_data(TensorData::new(last, [b]), &device);
        self.head(norm(&self.final_norm, x.select(0, last), &self.config))
    }
}

impl Pass {
    fn dropout(&self, site: u64, p: f64, one_mask: bool, n_rows: usize) -> Option<Arc<Dropout>> {
        self.dropout.and_then(|key| key.dropout(site, p, one_mask, n_rows))
    }
}

impl KvCache {
    /// Tokens that each row has seen.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
}

impl Attention {
    /// `[N, C]` to queries, keys and values, each `[B, H, T, E]`.
    fn split(&self, lora: Option<&Lora>, x: Tensor<2>, b: usize) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let [n, c] = x.dims();
        let (t, h) = (n / b, self.n_heads);
        let mut parts =
            project(&self.qkv, lora, x, Precision::F32).chunk(3, 1).into_iter().map(|part| part.reshape([b, t, h, c / h]).swap_dims(1, 2));
        let mut next = || parts.next().expect("three chunks");
        (next(), next(), next())
    }

    /// softmax(q·kᵀ / sqrt(E) + mask)·v (Vaswani et al. 2017), projected: `[B, H, T, E]` to `[N, C]`.
    fn attend(&self, lora: Option<&Lora>, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: Tensor<4>) -> Tensor<2> {
        let [b, h, t, e] = q.dims();
        // Scaling the queries costs T·E products a head, scaling the scores T·S.
        let scores = (q * (e as f64).powf(-0.5)).matmul(k.swap_dims(2, 3)); // [B, H, T, S]
        let y = softmax(scores + mask, 3).matmul(v); // [B, H, T, E]
        project(&self.proj, lora, y.swap_dims(1, 2).reshape([b * t, h * e]), Precision::F32)
    }
}

impl Mlp {
    /// With the adapters beside `up` and `down`.
    fn forward(&self, [up, down]: [Option<&Lora>; 2], x: Tensor<2>, precision: Precision) -> Tensor<2> {
        let x = project(&self.up, up, x, precision);
        let bias = self.down.bias.as_ref().map(|bias| bias.val());
        let added = down.map(|lora| lora.forward_gelu(x.clone(), precision));
        added.into_iter().fold(gelu_linear(x, self.down.weight.val(), bias, precision), |y, added| y + added)
    }
}

/// Drops of `x` `[N, C]`, of `n_rows` sequences, what the pass says for a site.
fn drop_at(x: Tensor<2>, pass: &Pass, site: u64, p: f64, one_mask: bool, n_rows: usize) -> Tensor<2> {
    match pass.dropout(site, p, one_mask, n_rows) {
        Some(dropped) => dropout(x, &dropped),
        None => x,
    }
}

/// A linear layer, with the adapter beside it.
fn project(layer: &Linear, lora: Option<&Lora>, x: Tensor<2>, precision: Precision) -> Tensor<2> {
    let added = lora.map(|lora| lora.forward(x.clone(), precision));
    let y = linear(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()), precision);
    added.into_iter().fold(y, |y, added| y + added)
}

fn norm(layer: &LayerNorm, x: Tensor<2>, config: &ModelConfig) -> Tensor<2> {
    layer_norm(x, layer.gamma.val(), layer.beta.as_ref().map(|beta| beta.val()), config.norm_eps)
}

/// [B, 1, T, S]: token i of a row that has seen `seen` tokens may look at the first `seen + i + 1`.
fn cached_mask(seen: &[usize], t: usize, s: usize, device: &Device) -> Tensor<4> {
    let mut mask = vec![0f32; seen.len() * t * s];
    for (row, values) in mask.chunks_mut(s).enumerate() {
        let visible = seen[row / t] + row % t + 1;
        values[visible.min(s)..].fill(MASKED);
    }
    Tensor::from_data(TensorData::new(mask, [seen.len(), 1, t, s]), device)
}

/// Writes the first `n_new[b]` of `new` `[B, H, T, E]` behind what row b of `all` `[B, H, context_len, E]` holds.
fn store(all: Tensor<4>, new: Tensor<4>, seen: &[usize], n_new: &[usize]) -> Tensor<4> {
    let [_, h, _, e] = new.dims();
    seen.iter().zip(n_new).enumerate().fold(all, |all, (row, (seen, n))| {
        let part = new.clone().slice([row..row + 1, 0..h, 0..*n, 0..e]);
        all.slice_assign([row..row + 1, 0..h, *seen..seen + n, 0..e], part)
    })
}
