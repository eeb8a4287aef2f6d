//! A command on a pseudo-terminal: its keys, and all that it writes there. Draws nothing.

use std::io::{Read, Write};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use crate::Lab;
use crate::lab::until;

/// What a terminal does with keys and text, in words that can be compared.
fn mode(pty: &Pty) -> String {
    format!("{:?}", rustix::termios::tcgetattr(pty).expect("a terminal has a mode"))
}

/// `kindling` on a terminal of its own.
pub struct OnTerminal {
    child: Child,
    /// Nothing once it has hung up.
    pty: Option<Arc<Pty>>,
    mode: String,
    written: Arc<Mutex<Vec<u8>>>,
    has_hung_up: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl OnTerminal {
    /// Starts `kindling LINE` in the lab, on a terminal with so many rows and columns, and with `TERM` as given.
    pub fn new(lab: &Lab, line: &str, (rows, columns): (u16, u16), term: &str) -> Self {
        let (pty, terminal) = open().expect("a pseudo-terminal");
        pty.resize(Size::new(rows, columns)).expect("a terminal has a size");
        let mode = mode(&pty);
        let command = lab.command(line);
        let started = Command::new(command.get_program())
            .args(command.get_args())
            .current_dir(lab.path(""))
            .env("TERM", term)
            .env("XDG_STATE_HOME", lab.path("state"));
        let child = started.spawn(terminal).expect("kindling starts");
        let (pty, written) = (Arc::new(pty), Arc::<Mutex<Vec<u8>>>::default());
        let has_hung_up = Arc::<AtomicBool>::default();
        let (from, to, hears) = (Arc::clone(&pty), Arc::clone(&written), Arc::clone(&has_hung_up));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 1 << 12];
            // Linux says that the other end is closed by an error, others by reading nothing.
            while let Ok(n @ 1..) = (&*from).read(&mut buffer) {
                to.lock().expect("no test panics while it reads").extend(&buffer[..n]);
                if hears.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        Self { child, pty: Some(pty), mode, written, has_hung_up, reader: Some(reader) }
    }

    /// What was written up to now, commands to the terminal and all.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("the reader does not panic")).into_owned()
    }

    /// Waits until something was written.
    pub fn wait_for(&self, text: &str) {
        until(text, || self.written().contains(text));
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        self.pty().write_all(keys.as_bytes()).expect("a terminal takes keys");
    }

    /// Makes the terminal as large as this, and waits until something is drawn.
    pub fn resize(&self, (rows, columns): (u16, u16)) {
        let before = self.written().len();
        self.pty().resize(Size::new(rows, columns)).expect("a terminal has a size");
        until("frame of another size", || self.written().len() > before);
    }

    fn pty(&self) -> &Pty {
        self.pty.as_deref().expect("nothing is asked of a terminal that has hung up")
    }

    /// Closes the terminal's window, while something is drawn, and waits for the end: the exit code, if it was no signal that ended it.
    pub fn hang_up(mut self) -> Option<i32> {
        // Once the next frame is read, the reader's hand on the terminal is gone, and with this one the last.
        self.has_hung_up.store(true, Ordering::Relaxed);
        self.reader.take().expect("it is joined once").join().expect("the reader does not panic");
        self.pty = None;
        self.wait()
    }

    fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until("end of the process", || {
            status = self.child.try_wait().expect("a child can be asked");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, after which the terminal's mode is what it was: the exit code, and all that was written.
    pub fn end(mut self) -> (i32, String) {
        let code = self.wait().unwrap_or(-1);
        self.reader.take().expect("it is joined once").join().expect("the reader does not panic");
        let written = String::from_utf8_lossy(&self.written.lock().expect("the reader has ended")).into_owned();
        assert_eq!(mode(self.pty()), self.mode, "the terminal is left as it was: {written:?}");
        (code, written)
    }
}

impl Drop for OnTerminal {
    /// What a test that failed leaves running ends with it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
