//! Support for the end-to-end tests: a folder to work in, the binary, and what it says. Links no crate of the workspace.
//!
//! A test runs commands in a [`Lab`] and looks at what they [`Said`]. A command is written as a line, whose first word may
//! stand for more: `TRAIN` is `kindling train` on the lab's text, `TRAIN_ON FILE` the same on another one.

mod lab;
mod said;
pub mod stories;
#[cfg(unix)]
mod terminal;

pub use lab::{Harm, Lab, is_root, line_of};
pub use said::{Said, check_usage};
#[cfg(unix)]
pub use terminal::OnTerminal;
