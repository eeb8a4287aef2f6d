//! Rows of unequal lengths in batches, those of like lengths together. Computes nothing.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Computes a batch: gets the numbers of its rows, their ids `[B, T]`, and the place of the last token of each, counted row by row.
pub type ComputeFn<'a, E> = dyn FnMut(&[usize], Tensor<2, Int>, &[usize]) -> Result<(), E> + 'a;

/// Rows of like lengths together, filled up to the longest. `progress` hears of rows done and rows in all.
///
/// # Errors
/// Those of `compute`.
pub fn in_batches<E>(
    rows: &[Vec<u32>],
    batch_size: usize,
    device: &Device,
    progress: &mut dyn FnMut(u64, u64),
    compute: &mut ComputeFn<'_, E>,
) -> Result<(), E> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(rows[*i].len()), *i));
    let mut done = 0;
    for batch in order.chunks(batch_size.max(1)) {
        let t = rows[batch[0]].len();
        let (mut ids, mut last) = (vec![0i64; batch.len() * t], Vec::with_capacity(batch.len()));
        for ((row, ids), i) in ids.chunks_mut(t).enumerate().zip(batch) {
            ids.iter_mut().zip(&rows[*i]).for_each(|(to, id)| *to = i64::from(*id));
            last.push(row * t + rows[*i].len() - 1);
        }
        compute(batch, Tensor::from_data(TensorData::new(ids, [batch.len(), t]), device), &last)?;
        done += batch.len() as u64;
        progress(done, rows.len() as u64);
    }
    Ok(())
}

/// Takes tokens from the beginning until at most `most` are left; says whether there were any.
pub fn truncate(ids: &mut Vec<u32>, most: usize) -> bool {
    let surplus = ids.len().saturating_sub(most);
    ids.drain(..surplus);
    surplus > 0
}
