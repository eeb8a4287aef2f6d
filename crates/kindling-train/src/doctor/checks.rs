//! The checks, one function each. What is measured is zero, or small, where training is honest; why a bound is what it is stands
//! beside it.

use std::ops::Range;

use kindling_data::Batch;
use kindling_kernels::stream;
use kindling_model::weights::HostTensor;

use super::{Finding, Parameters, ROWS, Subject};
use crate::TrainError;

/// Places of a row that are changed to see which others see them.
const PLACES: usize = 32;
/// Logits that are compared at once.
const LOGITS_AT_ONCE: usize = 1 << 22;
/// Random directions in each parameter.
const DIRECTIONS: u64 = 3;
/// Tokens whose loss is differentiated.
const SLOPE_TOKENS: usize = 32;
/// How far a parameter is moved along them, relative to the root mean square of its values. At a third of it rounding makes the largest
/// error four times as large, at three times it what differences leave out makes it twenty times as large.
const DISTANCE: f64 = 0.03;
/// Steps that a model may take to learn one batch by heart.
const OVERFITTING_STEPS: usize = 300;

/// A third allows for what initial weights know without training: in a tied head each token expects itself, which a small
/// vocabulary shows. Measured 0.004 with 4096 tokens, 0.011 with 65. A sum in place of a mean is off by far more, and so are
/// logits that begin some times too large.
pub(super) fn fresh_loss<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let loss = subject.loss(&subject.batch_at(0))?;
    let n = n_outputs(subject);
    let expected = (n as f64).ln();
    let figure = format!("{loss:.3} nats, ln({n}) = {expected:.3}");
    Ok(Finding { measured: (loss / expected - 1.0).abs(), bound: 1.0 / 3.0, figure })
}

/// Rows of two batches that are not a stretch of the training tokens, targets one place behind the ids.
pub(super) fn next_tokens<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let stretches = subject.training();
    let is_read = |row: &Batch, places: Range<usize>| {
        let n = row.weights[places.clone()].iter().rposition(|weight| *weight > 0.0).map_or(0, |last| last + 1);
        let places = places.start..places.start + n;
        let (ids, targets) = (&row.ids[places.clone()], &row.targets[places.clone()]);
        // Of a text all counts. Of an example its end does, and behind it nothing.
        let in_front = row.restart_positions || row.weights[places].iter().all(|weight| *weight > 0.0);
        let found = |stretch: &Vec<u32>| stretch.windows(n + 1).any(|tokens| tokens[..n] == *ids && tokens[1..] == *targets);
        n > 0 && in_front && stretches.iter().any(found)
    };
    let rows: Vec<_> = (0..2).map(|step| subject.batch_at(step)).flat_map(|batch| rows_of(&batch)).collect();
    let wrong = rows.iter().filter(|row| !stretches_of(row).into_iter().all(|places| is_read(row, places))).count();
    Ok(Finding { measured: wrong as f64, bound: 0.0, figure: format!("{wrong} of {} rows are not as in the data", rows.len()) })
}

/// The places of a row that stand together in the data: all, or those of each example.
fn stretches_of(row: &Batch) -> Vec<Range<usize>> {
    let of_examples = row.document_starts.clone().filter(|_| row.restart_positions);
    let starts = of_examples.unwrap_or_else(|| vec![0; row.row_len]);
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for (place, start) in starts.iter().enumerate() {
        match stretches.last_mut() {
            Some(stretch) if stretch.start == *start as usize => stretch.end = place + 1,
            _ => stretches.push(place..place + 1),
        }
    }
    stretches
}

/// What the head tells apart: tokens, or classes.
fn n_outputs<S: Subject>(subject: &S) -> usize {
    let model = &subject.config().model;
    if model.n_classes > 0 { model.n_classes } else { model.vocab_size }
}

/// What of a row's outputs changes with one of its tokens.
struct Influence {
    /// Places that should have changed, and did not.
    blind: usize,
    /// Places that should have changed.
    visible: usize,
    /// The smallest change of those, and the largest of all others, relative to the largest logit.
    least_seen: f64,
    most_unseen: f64,
}

/// A change below it is none. Measured on flex: none at all where a token is not seen, at least 5e-3 where it is.
const NO_CHANGE: f64 = 1e-6;

fn influence<S: Subject>(subject: &mut S) -> Influence {
    make_loud(subject);
    let row = subject.batch_at(0).rows(0, 1);
    let (n, vocab_size, n_outputs) = (row.row_len, subject.config().model.vocab_size, n_outputs(subject));
    let starts = row.document_starts.clone().unwrap_or_else(|| vec![0; n]);
    let seed = subject.config().seed.stream("doctor/places");
    let places: Vec<usize> = if n <= PLACES { (0..n).collect() } else { (0..PLACES).map(|i| i * (n - 1) / (PLACES - 1)).collect() };
    let mut found = Influence { blind: 0, visible: 0, least_seen: f64::INFINITY, most_unseen: 0.0 };
    for places in places.chunks((LOGITS_AT_ONCE / (n * n_outputs)).max(1)) {
        // The row as it is, and with one token changed in each place, in one batch.
        let mut rows = vec![row.clone(); 1 + places.len()];
        for (row, place) in rows[1..].iter_mut().zip(places) {
            row.ids[*place] = another(row.ids[*place], stream(seed, &[*place as u64]), vocab_size);
        }
        let logits = subject.logits(&batch_of(&rows));
        let (original, changed) = logits.split_at(n * n_outputs);
        let largest = original.iter().fold(0.0, |largest: f64, logit| largest.max(f64::from(logit.abs())));
        for (changed, place) in changed.chunks(n * n_outputs).zip(places) {
            let of_tokens = original.chunks(n_outputs).zip(changed.chunks(n_outputs));
            for (t, (a, b)) in of_tokens.enumerate() {
                let change = distance(a, b) / largest;
                if t >= *place && starts[t] as usize <= *place {
                    found.visible += 1;
                    found.blind += usize::from(change.is_nan() || change <= NO_CHANGE);
                    found.least_seen = found.least_seen.min(change);
                } else {
                    found.most_unseen = worse(found.most_unseen, change);
                }
            }
        }
    }
    found
}

pub(super) fn past<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let Influence { blind, visible, least_seen, .. } = influence(subject);
    let figure = format!("{blind} of {visible} outputs do not change with an earlier token; least change {least_seen:.1e}");
    Ok(Finding { measured: blind as f64, bound: 0.0, figure })
}

pub(super) fn future<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let measured = influence(subject).most_unseen;
    Ok(Finding { measured, bound: NO_CHANGE, figure: format!("largest change {measured:.1e} by a token that must not be seen") })
}

/// Measured: no difference of losses, 5e-7 of gradients.
pub(super) fn rows<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    make_loud(subject);
    let batch = subject.batch_at(0);
    let (mut losses, mut grads) = (0.0, 0.0);
    for i in [0, batch.n_rows - 1] {
        let (alone, mut within) = (batch.rows(i, i + 1), batch.clone());
        (0..within.weights.len()).filter(|place| place / batch.row_len != i).for_each(|place| within.weights[place] = 0.0);
        losses = worse(losses, (subject.loss(&within)? / subject.loss(&alone)? - 1.0).abs());
        grads = worse(grads, difference(&subject.gradients(&within, 0)?, &subject.gradients(&alone, 0)?).0);
    }
    let figure = format!("two rows, alone and among others: losses differ by {losses:.1e}, gradients by {grads:.1e}");
    Ok(Finding { measured: worse(losses, grads), bound: 1e-5, figure })
}

/// The change by targets that do not count, relative to that by those that do. Measured on flex: none.
pub(super) fn masked_targets<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    make_loud(subject);
    let (seed, vocab_size) = (subject.config().seed.stream("doctor/targets"), n_outputs(subject));
    let mut batch = subject.batch_at(0);
    (0..batch.weights.len()).filter(|place| place % 2 == 0).for_each(|place| batch.weights[place] = 0.0);
    let with_others = |counted: bool| {
        let mut other = batch.clone();
        for place in 0..other.targets.len() {
            if (batch.weights[place] > 0.0) == counted {
                other.targets[place] = another(other.targets[place], stream(seed, &[place as u64]), vocab_size);
            }
        }
        other
    };
    let computed = |batch: &Batch| Ok::<_, TrainError>((subject.loss(batch)?, subject.gradients(batch, 0)?));
    let (loss, grads) = computed(&batch)?;
    let change = |other: &Batch| {
        let (other_loss, other_grads) = computed(other)?;
        Ok::<_, TrainError>(worse((other_loss - loss).abs(), difference(&other_grads, &grads).0))
    };
    let (masked, counted) = (change(&with_others(false))?, change(&with_others(true))?);
    let figure = format!("masked targets change {masked:.1e}, counted ones {counted:.1e}");
    Ok(Finding { measured: masked / counted, bound: 1e-6, figure })
}

/// Measured at most 7e-7 on flex and 1.2e-6 on ndarray, relative to the largest gradient of each parameter; a mean of means is off by more than 0.1.
pub(super) fn accumulation<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    make_loud(subject);
    let mut batch = subject.batch_at(0);
    // Of row i every place counts whose remainder is at least i: all of the first, a sixth of the last.
    for (place, weight) in batch.weights.iter_mut().enumerate() {
        if place % batch.row_len % ROWS < place / batch.row_len {
            *weight = 0.0;
        }
    }
    let whole = subject.gradients(&batch, 0)?;
    let (mut measured, mut figure) = (0.0, String::new());
    for micro_batch_size in [1, 4] {
        let (worst, name) = difference(&subject.gradients(&batch, micro_batch_size)?, &whole);
        if figure.is_empty() || worst.is_nan() || worst > measured {
            (measured, figure) = (worst, format!("most in `{name}`, with micro-batches of {micro_batch_size}"));
        }
    }
    Ok(Finding { measured, bound: 1e-5, figure })
}

/// Of each parameter, the slope of the loss in random directions of it, by the gradient and by losses before and behind it. Measured
/// at most 2e-3, in biases and norms, whose slopes are small beside the rounding of a loss in f32; matrices are ten times closer. A
/// gradient that is lost, or a part of it, is off by its share of the whole.
pub(super) fn finite_differences<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    make_loud(subject);
    // Few tokens: a loss is computed hundreds of times, and the fewer are summed the less is lost to rounding.
    let batch = beginning(&subject.batch_at(0).rows(0, 1), SLOPE_TOKENS);
    let (grads, weights) = (subject.gradients(&batch, 0)?, trained(subject));
    let (mut measured, mut worst) = (0.0, "");
    for ((name, tensor), key) in weights.iter().zip(0..) {
        // Of all directions together: in one alone the slope may be nearly zero by chance.
        let (mut error, mut by_gradient, mut by_loss) = (0.0, 0.0, 0.0);
        for direction in 0..DIRECTIONS {
            let (gradient, loss) = slopes(subject, &batch, (name, tensor), grads.get(name), [key, direction])?;
            error += (loss - gradient).powi(2);
            by_gradient += gradient.powi(2);
            by_loss += loss.powi(2);
        }
        set(subject, name, tensor);
        let relative = (error / f64::max(by_gradient, by_loss)).sqrt();
        if worst.is_empty() || relative.is_nan() || relative > measured {
            (measured, worst) = (relative, name);
        }
    }
    let figure =
        format!("relative error {measured:.1e} in `{worst}`, the worst of {} parameters, in {DIRECTIONS} directions each", weights.len());
    Ok(Finding { measured, bound: 2e-2, figure })
}

/// By how much the loss grows along a random direction of one parameter, by its gradient and by losses: differences over two distances,
/// combined so that their third derivatives cancel (Richardson 1911). `key` names the direction.
fn slopes<S: Subject>(
    subject: &mut S,
    batch: &Batch,
    (name, tensor): (&str, &HostTensor),
    grad: Option<&HostTensor>,
    key: [u64; 2],
) -> Result<(f64, f64), TrainError> {
    let seed = subject.config().seed.stream("doctor/directions");
    let moved = |h: f64| {
        let mut moved = tensor.clone();
        moved.values.iter_mut().enumerate().for_each(|(i, value)| *value += (h * sign(seed, key, i)) as f32);
        moved
    };
    let mut around = |h: f64| {
        let (before, behind) = (moved(-h), moved(h));
        // Along what f32 has made of the direction.
        let by_gradient = grad.map_or(0.0, |grad| along(&grad.values, &before.values, &behind.values));
        set(subject, name, &before);
        let loss = subject.loss(batch)?;
        set(subject, name, &behind);
        Ok::<_, TrainError>((by_gradient, subject.loss(batch)? - loss))
    };
    let h = DISTANCE * rms(&tensor.values);
    let (near, far) = (around(h)?, around(2.0 * h)?);
    Ok(((8.0 * near.0 - far.0) / 6.0, (8.0 * near.1 - far.1) / 6.0))
}

pub(super) fn every_gradient<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let (lr, mut without) = (subject.config().train.lr, trained(subject));
    let n = without.len();
    for step in 0..2 {
        let batch = subject.batch_at(step);
        let grads = subject.gradients(&batch, 0)?;
        without.retain(|name, _| grads.get(name).is_none_or(|grad| grad.values.iter().all(|value| *value == 0.0)));
        subject.step(lr, &batch)?;
    }
    Ok(Finding { measured: without.len() as f64, bound: 0.0, figure: of_all(&without, n, "have no gradient") })
}

/// A parameter that only decays would seem to move. What moves against its first gradient is being trained, by whichever optimizer.
pub(super) fn every_update<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let batch = subject.batch_at(0);
    let (grads, before) = (subject.gradients(&batch, 0)?, trained(subject));
    subject.step(subject.config().train.lr, &batch)?;
    let after = subject.parameters();
    let mut still = before.clone();
    still.retain(|name, before| {
        let Some(grad) = grads.get(name).filter(|grad| grad.values.iter().any(|value| *value != 0.0)) else { return false };
        let climbed = along(&grad.values, &before.values, &after[name].values);
        climbed.is_nan() || climbed >= 0.0
    });
    Ok(Finding { measured: still.len() as f64, bound: 0.0, figure: of_all(&still, before.len(), "do not move against their gradient") })
}

/// Measured: a quarter is reached after 19 steps with the preset `spark`, 22 with `shakespeare-char`, and 154 at a `d_model` of 16. To
/// know how often each token occurs would not be enough.
pub(super) fn overfitting<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    const BOUND: f64 = 0.25;
    let is_frozen = trained(subject).len() < subject.parameters().len();
    if is_frozen {
        // A frozen head with initial weights cannot say anything loud enough, whatever comes to it.
        make_loud(subject);
        let mut head = subject.parameters();
        head.retain(|name, _| name == "tok_embedding.weight");
        head.values_mut().flat_map(|tensor| &mut tensor.values).for_each(|value| *value *= 2.0);
        subject.set_parameters(&head);
    }
    // Beside frozen weights there is less room.
    let batch = subject.batch_at(0).rows(0, if is_frozen { 1 } else { 2 });
    let (lr, first) = (subject.config().train.lr, subject.loss(&batch)?);
    let (mut steps, mut loss) = (0, first);
    while steps < OVERFITTING_STEPS && loss > BOUND * first {
        steps += 1;
        // Ten steps of warmup.
        subject.step(lr * (steps as f64 / 10.0).min(1.0), &batch)?;
        loss = subject.loss(&batch)?;
    }
    Ok(Finding { measured: loss / first, bound: BOUND, figure: format!("from {first:.3} nats to {loss:.3} in {steps} steps") })
}

pub(super) fn validation<S: Subject>(subject: &mut S) -> Result<Finding, TrainError> {
    let validation = subject.validate();
    let mut times = vec![0u32; validation.targets.last().map_or(0, |last| *last as usize + 1)];
    for (start, end) in validation.windows {
        (start + 1..end.min(times.len() as u64)).for_each(|place| times[place as usize] += 1);
    }
    let n = validation.targets.len() as u64;
    let wrong = validation.targets.iter().filter(|place| times[**place as usize] != 1).count() as u64;
    let figure = format!("{} predictions of {n} tokens; {wrong} are not predicted once", validation.counted);
    // That nothing is predicted wrongly says nothing where nothing is predicted.
    let nothing = u64::from(n == 0);
    Ok(Finding { measured: wrong.max(validation.counted.abs_diff(n)).max(nothing) as f64, bound: 0.0, figure })
}

/// Gives the model weights with which every token has a say: with initial weights attention is all but uniform and hardly any
/// gradient comes to it, so that a wrong mask drowns in rounding. Entries of a matrix get a root mean square of 1/sqrt of its shorter
/// side, those of a vector 0.1 of chance. The two factors of an adapter, of which one is zero at first, get it of their longer sides: their product
/// then moves what a matrix beside them gives, and does not drown it.
fn make_loud<S: Subject>(subject: &mut S) {
    let seed = subject.config().seed.stream("doctor/weights");
    let mut parameters = subject.parameters();
    for ((name, tensor), key) in parameters.iter_mut().zip(0..) {
        if tensor.shape.len() < 2 {
            tensor.values.iter_mut().enumerate().for_each(|(i, value)| *value += 0.1 * sign(seed, [key, 0], i) as f32);
        } else {
            let sides = tensor.shape.iter().copied();
            let side = if name.starts_with("lora.") { sides.max() } else { sides.min() }.unwrap_or(1);
            if rms(&tensor.values) == 0.0 {
                tensor.values.iter_mut().enumerate().for_each(|(i, value)| *value = sign(seed, [key, 1], i) as f32);
            }
            let factor = 1.0 / ((side as f64).sqrt() * rms(&tensor.values));
            tensor.values.iter_mut().for_each(|value| *value *= factor as f32);
        }
    }
    subject.set_parameters(&parameters);
}

/// The weights that are trained.
fn trained<S: Subject>(subject: &S) -> Parameters {
    let mut trained = subject.parameters();
    trained.retain(|name, _| subject.is_trained(name));
    trained
}

/// -1 or 1, by chance.
fn sign(seed: u64, key: [u64; 2], i: usize) -> f64 {
    if stream(seed, &[key[0], key[1], i as u64]) & 1 == 0 { -1.0 } else { 1.0 }
}

/// Another id, any of them with equal chance.
fn another(id: u32, random: u64, vocab_size: usize) -> u32 {
    let others = vocab_size.max(2) as u64 - 1;
    ((u64::from(id) + 1 + random % others) % vocab_size as u64) as u32
}

/// How much a gradient says that something grows from one point to another.
fn along(grad: &[f32], from: &[f32], to: &[f32]) -> f64 {
    grad.iter().zip(from.iter().zip(to)).map(|(grad, (from, to))| f64::from(*grad) * (f64::from(*to) - f64::from(*from))).sum()
}

fn set<S: Subject>(subject: &mut S, name: &str, tensor: &HostTensor) {
    subject.set_parameters(&Parameters::from([(name.to_owned(), tensor.clone())]));
}

fn rms(values: &[f32]) -> f64 {
    (values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// `f64::max`, except that NaN wins.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, worse)
}

/// The largest difference of two gradients, relative to the largest value of the parameter's second, and which parameter's it is. A
/// missing gradient is all different.
fn difference<'a>(a: &Parameters, b: &'a Parameters) -> (f64, &'a str) {
    let largest = |tensor: &HostTensor| tensor.values.iter().map(|value| f64::from(value.abs())).fold(f64::MIN_POSITIVE, f64::max);
    let of =
        |(name, b): (&'a String, &HostTensor)| (a.get(name).map_or(1.0, |a| distance(&a.values, &b.values) / largest(b)), name.as_str());
    b.iter().map(of).fold((0.0, ""), |worst, this| if worst.0.is_nan() || worst.0 >= this.0 { worst } else { this })
}

/// How many parameters of all something holds of, and the first.
fn of_all(some: &Parameters, n: usize, what: &str) -> String {
    let first = some.keys().next().map_or(String::new(), |name| format!(", the first is `{name}`"));
    format!("{} of {n} parameters {what}{first}", some.len())
}

fn rows_of(batch: &Batch) -> Vec<Batch> {
    (0..batch.n_rows).map(|row| batch.rows(row, row + 1)).collect()
}

/// The first `n` tokens of a row, or all if it has no more. If none of them counts, all do.
fn beginning(row: &Batch, n: usize) -> Batch {
    let n = n.min(row.row_len);
    let counts = row.weights[..n].iter().any(|weight| *weight > 0.0);
    Batch {
        n_rows: 1,
        row_len: n,
        ids: row.ids[..n].to_vec(),
        targets: row.targets[..n].to_vec(),
        weights: if counts { row.weights[..n].to_vec() } else { vec![1.0; n] },
        document_starts: row.document_starts.as_ref().map(|starts| starts[..n].to_vec()),
        restart_positions: row.restart_positions,
    }
}

/// Rows of equal length as one batch.
fn batch_of(rows: &[Batch]) -> Batch {
    Batch {
        n_rows: rows.len(),
        row_len: rows[0].row_len,
        ids: rows.iter().flat_map(|row| row.ids.clone()).collect(),
        targets: rows.iter().flat_map(|row| row.targets.clone()).collect(),
        weights: rows.iter().flat_map(|row| row.weights.clone()).collect(),
        document_starts: rows.iter().map(|row| row.document_starts.clone()).collect::<Option<Vec<_>>>().map(|starts| starts.concat()),
        restart_positions: rows[0].restart_positions,
    }
}
