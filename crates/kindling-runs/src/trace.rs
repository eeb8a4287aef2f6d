//! Where a training spends its time, in Chrome's trace-event format, which Perfetto and `chrome://tracing` open. Measures nothing itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Run, RunsError};

const TRACE: &str = "trace.json";
/// Bytes that are kept before they are written.
const BUFFER_LEN: usize = 1 << 16;

/// Writes one trace: spans on one track, where those that lie within another are shown below it.
///
/// Only whole spans are written: a process that is killed leaves an array of them that lacks its end, as the format allows.
#[derive(Debug)]
pub struct TraceWriter {
    file: fs_err::File,
    buffer: Vec<u8>,
}

impl Run {
    /// Begins the run's trace, in place of the one of an earlier start.
    ///
    /// # Errors
    /// I/O.
    pub fn trace(&self) -> Result<TraceWriter, RunsError> {
        TraceWriter::create(&self.trace_path())
    }

    /// Where its trace lies, or would.
    pub fn trace_path(&self) -> PathBuf {
        self.dir().join(TRACE)
    }
}

impl TraceWriter {
    /// Begins a trace.
    ///
    /// # Errors
    /// I/O.
    pub fn create(path: &Path) -> Result<Self, RunsError> {
        let name = json!({"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": {"name": "kindling"}});
        Ok(Self { file: fs_err::File::create(path)?, buffer: format!("[\n{name}").into_bytes() })
    }

    /// Adds a span. `start` is counted from whatever moment the caller began to count; `args` is an object of what else is known
    /// of it. Of spans that start together the longest comes first; otherwise the order does not matter.
    ///
    /// # Errors
    /// I/O.
    pub fn span(&mut self, name: &str, category: &str, start: Duration, duration: Duration, args: &Value) -> Result<(), RunsError> {
        // Microseconds, with the nanoseconds as fractions: rounded, a span could outlast the one that it lies in.
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        let span = json!({
            "ph": "X", "name": name, "cat": category, "pid": 1, "tid": 1, "ts": micros(start), "dur": micros(duration), "args": args
        });
        self.buffer.extend(format!(",\n{span}").into_bytes());
        if self.buffer.len() < BUFFER_LEN { Ok(()) } else { self.flush() }
    }

    /// Ends the trace: from now on it is a whole JSON document.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(mut self) -> Result<(), RunsError> {
        self.buffer.extend(b"\n]\n");
        self.flush()
    }

    fn flush(&mut self) -> Result<(), RunsError> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    /// A step of 3.000001 s at every fourth second, with two parts that follow each other without a gap.
    fn write_steps(trace: &mut TraceWriter, n_steps: u64) {
        let part = Duration::from_nanos(1_000_000_000);
        for step in 0..n_steps {
            let start = Duration::new(4 * step, 333);
            let rest = Duration::from_nanos(2_000_000_001);
            trace.span("step", "step", start, part + rest, &json!({"step": step})).unwrap();
            trace.span("forward", "step", start, part, &json!({})).unwrap();
            trace.span("backward", "step", start + part, rest, &json!({})).unwrap();
        }
    }

    #[test]
    fn a_finished_trace_is_json_and_its_spans_nest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.json");
        let mut trace = TraceWriter::create(&path).unwrap();
        write_steps(&mut trace, 2000);
        trace.finish().unwrap();
        let events: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(events.len(), 1 + 3 * 2000);
        let nanos = |event: &Value, key: &str| (event[key].as_f64().unwrap() * 1000.0).round() as u64;
        let range = |event: &Value| (nanos(event, "ts"), nanos(event, "ts") + nanos(event, "dur"));
        for (step, spans) in events[1..].chunks(3).enumerate() {
            let [(start, end), (a, b), (c, d)] = [range(&spans[0]), range(&spans[1]), range(&spans[2])];
            assert_eq!((a, b, d), (start, c, end), "step {step}");
            assert_eq!((start, spans[0]["args"]["step"].as_u64()), (4_000_000_000 * step as u64 + 333, Some(step as u64)));
        }
    }

    #[test]
    fn a_killed_process_leaves_whole_spans() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.json");
        let mut trace = TraceWriter::create(&path).unwrap();
        write_steps(&mut trace, 2000);
        std::mem::forget(trace);
        let text = std::fs::read_to_string(path).unwrap();
        let events: Vec<Value> = serde_json::from_str(&(text + "]")).unwrap();
        // All but what the buffer holds, of spans that take some 100 bytes each.
        assert!(events.len() > 3 * 2000 - BUFFER_LEN / 80, "{} events", events.len());
    }
}
