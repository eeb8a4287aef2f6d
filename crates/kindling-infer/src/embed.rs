//! Texts and tokens as vectors, and which tokens are near. Trains nothing.

use burn::tensor::{Tensor, TensorData};
use kindling_config::{ModelConfig, Pooling, Seed};
use kindling_model::weights::to_host;
use kindling_model::{Gpt, Pass};
use kindling_tokenizer::Tokenizer;

use crate::{InferError, in_batches, prompt_ids, truncate};

/// A vector for each text: the residual stream behind the last norm, `[C]`, at the last token or as the mean over all tokens; the token that
/// begins a text takes no part in the mean. Of a text longer than the context the end is seen; of how many is told too. `progress` hears of texts done and texts in
/// all.
///
/// # Errors
/// A text that the vocabulary cannot express.
pub fn embed(
    model: &Gpt,
    tokenizer: &Tokenizer,
    texts: &[String],
    pooling: Pooling,
    batch_size: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Vec<Vec<f32>>, usize), InferError> {
    // What a head over classes pools is not asked for.
    let config = ModelConfig { n_classes: 0, pooling: Pooling::Last, ..model.config().clone() };
    let model = &model.clone().with_head(&config, Seed(0));
    let mut rows = texts.iter().map(|text| prompt_ids(tokenizer, text)).collect::<Result<Vec<_>, _>>()?;
    let n_truncated = rows.iter_mut().map(|row| truncate(row, config.context_len)).filter(|is_truncated| *is_truncated).count();
    let (mut found, c) = (vec![Vec::new(); rows.len()], config.d_model);
    in_batches(&rows, batch_size, &model.device(), progress, &mut |batch, ids, last| {
        let [_, t] = ids.dims();
        let hidden = to_host(model.hidden(ids, &Pass::default())).values; // [B·T, C]
        for (row, (i, last)) in batch.iter().zip(last).enumerate() {
            let begins = usize::from(rows[*i].len() > 1 && tokenizer.end_of_text() == rows[*i].first().copied());
            let places = match pooling {
                Pooling::Last => *last..last + 1,
                Pooling::Mean => row * t + begins..last + 1,
            };
            let n = places.len() as f32;
            let mut vector = vec![0.0; c];
            for place in places {
                vector.iter_mut().zip(&hidden[place * c..][..c]).for_each(|(sum, value)| *sum += value / n);
            }
            found[*i] = vector;
        }
        Ok::<_, InferError>(())
    })?;
    Ok((found, n_truncated))
}

/// The vector of every token, `[V, C]`: the model's token embedding, without the rows that the tokenizer has no token for.
pub fn token_vectors(model: &Gpt, tokenizer: &Tokenizer) -> Vec<Vec<f32>> {
    let n = tokenizer.vocab_size();
    let ids: Vec<i64> = (0..n as i64).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [n]), &model.device());
    let table = to_host(model.token_embedding().select(0, ids));
    table.values.chunks(model.config().d_model).map(<[f32]>::to_vec).collect()
}

/// A token near a word.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Neighbour {
    /// The token's text, with U+FFFD for what is no character by itself.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Cosine of the angle between both vectors: 1 for the same direction, 0 for none in common.
    pub cosine: f64,
}

/// The `n` tokens whose embeddings are nearest to a word's, the nearest first; without the word's own tokens, and special ones. A word of
/// several tokens has their mean. With a space before it a word is often a token of its own, so both spellings are tried, and the one of
/// fewer tokens taken.
///
/// # Errors
/// A word that the vocabulary cannot express, or that has no token.
pub fn nearest(model: &Gpt, tokenizer: &Tokenizer, word: &str, n: usize) -> Result<Vec<Neighbour>, InferError> {
    let spellings = [format!(" {word}"), word.to_owned()].map(|text| tokenizer.encode(&text).map_err(InferError::Tokenizer));
    let [with_space, without] = spellings;
    let own = match (with_space, without?) {
        (Ok(with_space), without) if with_space.len() < without.len() => with_space,
        (_, without) => without,
    };
    if own.is_empty() {
        return Err(InferError::NoWord(word.to_owned()));
    }
    let vectors = token_vectors(model, tokenizer);
    let mut wanted = vec![0f64; model.config().d_model];
    for id in &own {
        wanted.iter_mut().zip(&vectors[*id as usize]).for_each(|(sum, value)| *sum += f64::from(*value) / own.len() as f64);
    }
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let of_wanted = length(&mut wanted.iter().copied());
    let mut near: Vec<Neighbour> = (0..tokenizer.vocab_size() as u32)
        .filter(|id| !own.contains(id) && !tokenizer.is_special(*id))
        .map(|id| {
            let vector = &vectors[id as usize];
            let product: f64 = vector.iter().zip(&wanted).map(|(a, b)| f64::from(*a) * b).sum();
            let cosine = product / of_wanted / length(&mut vector.iter().map(|value| f64::from(*value)));
            let token = tokenizer.token_bytes(id).map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned());
            Neighbour { token, id, cosine }
        })
        .collect();
    near.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.id.cmp(&b.id)));
    near.truncate(n);
    Ok(near)
}
