//! TensorBoard's event files: scalars and texts of a run. Writes them only; TensorBoard reads them.
//!
//! A file is a sequence of TFRecords, each an `Event` in Protocol Buffers. The few fields that are needed are encoded here by hand:
//! their numbers are those of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto`.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::fenced;
use crate::{Run, RunsError};

/// What the names of event files begin with; TensorBoard looks for `tfevents`, and reads the files in the order of their names.
const EVENTS: &str = "events.out.tfevents.";

/// Fields of `Event`.
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
const SESSION_LOG: u8 = 7;

/// Writes one event file. Every event is on its way to the disk when its function returns: a process that is killed leaves at most
/// one record that is cut off, which TensorBoard passes over.
#[derive(Debug)]
pub struct EventWriter {
    file: fs_err::File,
}

impl Run {
    /// Begins another event file in the run folder. What earlier ones have of `first_step` and later steps counts no more: a resumed
    /// run takes those steps again.
    ///
    /// # Errors
    /// I/O.
    pub fn tensorboard(&self, first_step: u64) -> Result<EventWriter, RunsError> {
        let mut second = seconds_now() as u64;
        for entry in fs_err::read_dir(self.dir())? {
            let name = entry?.file_name();
            let other = name.to_str().and_then(|name| name.strip_prefix(EVENTS)?.split('.').next()?.parse::<u64>().ok());
            // Behind all that are there, also where a clock was set back.
            second = second.max(other.map_or(0, |other| other.saturating_add(1)));
        }
        EventWriter::create(&self.dir().join(format!("{EVENTS}{second:010}.kindling")), first_step)
    }
}

impl EventWriter {
    fn create(path: &Path, first_step: u64) -> Result<Self, RunsError> {
        let file = fs_err::OpenOptions::new().create_new(true).write(true).open(path)?;
        let mut writer = Self { file };
        writer.write(0, FILE_VERSION, b"brain.Event:2")?;
        // `SessionLog { status: START }`, at which TensorBoard forgets what it has of this step and later ones.
        writer.write(first_step, SESSION_LOG, &[1 << 3, 1])?;
        Ok(writer)
    }

    /// Adds a point to the curve `tag`.
    ///
    /// # Errors
    /// I/O.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<(), RunsError> {
        self.write(step, SUMMARY, &scalar(tag, value))
    }

    /// Adds a text to those of `tag`. TensorBoard takes texts for Markdown; this one is shown as it is.
    ///
    /// # Errors
    /// I/O.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<(), RunsError> {
        self.write(step, SUMMARY, &markdown(tag, &fenced(text)))
    }

    fn write(&mut self, step: u64, field: u8, content: &[u8]) -> Result<(), RunsError> {
        Ok(self.file.write_all(&record(&event(seconds_now(), step, field, content)))?)
    }
}

/// Seconds since 1970.
fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A TFRecord: the length, its checksum, the content, its checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    [&length, masked_crc(&length).as_slice(), content, &masked_crc(content)].concat()
}

/// CRC-32C, turned and shifted as in TensorFlow's `crc32c.h`: a checksum over data that hold checksums would be weak.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// `Event { wall_time, step, [field]: content }`
fn event(wall_time: f64, step: u64, field: u8, content: &[u8]) -> Vec<u8> {
    let mut event = vec![(1 << 3) | 1];
    event.extend(wall_time.to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    [event, message(field, content)].concat()
}

/// `Summary { value: { tag, simple_value: value } }`
fn scalar(tag: &str, value: f32) -> Vec<u8> {
    message(1, &[message(1, tag.as_bytes()).as_slice(), &[(2 << 3) | 5], &value.to_le_bytes()].concat())
}

/// `Summary { value: { tag, tensor: { dtype: DT_STRING, tensor_shape: {}, string_val: text }, metadata: { plugin_data: { plugin_name:
/// "text" } } } }`
fn markdown(tag: &str, text: &str) -> Vec<u8> {
    let tensor = [&[1 << 3, 7][..], &message(2, &[]), &message(8, text.as_bytes())].concat();
    let metadata = message(1, &message(1, b"text"));
    message(1, &[message(1, tag.as_bytes()), message(8, &tensor), message(9, &metadata)].concat())
}

/// A field that holds a string, bytes or a message.
fn message(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![(field << 3) | 2];
    varint(&mut out, content.len() as u64);
    out.extend(content);
    out
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: u64, field: u8, content: &[u8], expected: &str) {
        let found: String = record(&event(1.5, step, field, content)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn records_are_those_of_tensorboards_own_writer() {
        // tensorboard 2.21.0: `RecordWriter(file).write(Event(wall_time=1.5, step=300, …).SerializeToString())`.
        check(300, SESSION_LOG, &[1 << 3, 1], "100000000000000095fbfe1809000000000000f83f10ac023a020801713b788a");
        check(300, SUMMARY, &scalar("loss", 2.5), "1b000000000000001a0d9e1309000000000000f83f10ac022a0d0a0b0a046c6f7373150000204068997c51");
        let long = "6f".repeat(200);
        check(
            300,
            SUMMARY,
            &markdown("sample", &"o".repeat(200)),
            &format!(
                "f6000000000000004d1b289a09000000000000f83f10ac022ae7010ae4010a0673616d706c6542cf010807120042c801{long}\
                 4a080a060a04746578742bbcc964"
            ),
        );
    }
}
