//! The hidden folder in which a corpus is prepared: one process at a time, what is finished in it outlasts a kill. Knows no texts.

use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kindling_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::manifest::{ShardManifest, TOKENIZER, hash_of};

const LOCK: &str = "lock";
const PROGRESS: &str = "progress.json";

/// `.preparing-NAME` in the folder of data, and the right to write in it.
pub(crate) struct Workplace {
    pub(crate) dir: PathBuf,
    lock: fs_err::File,
}

/// What is finished.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    tokenizer_hash: String,
    training: Vec<ShardManifest>,
    validation: Vec<ShardManifest>,
}

/// What an earlier process finished.
#[derive(Default)]
pub(crate) struct Finished {
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) training: Vec<ShardManifest>,
    pub(crate) validation: Vec<ShardManifest>,
}

impl Workplace {
    /// Takes the folder, waiting for another process that has it; `waits` is told of that once.
    pub(crate) fn take(data_dir: &Path, name: &str, waits: &mut dyn FnMut()) -> Result<Self, DataError> {
        let dir = data_dir.join(format!(".preparing-{name}"));
        let mut has_waited = false;
        loop {
            fs_err::create_dir_all(&dir)?;
            let path = dir.join(LOCK);
            let lock = match fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
                Ok(lock) => lock,
                // Whoever had the folder has moved it away in this moment.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            match lock.file().try_lock() {
                Ok(()) if is_at(&lock, &path) => return Ok(Self { dir, lock }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut has_waited, true) {
                        waits();
                    }
                    lock.file().lock()?;
                }
                // Where a file system has no locks, two processes write the same bytes at worst.
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(Self { dir, lock }),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// What is finished and as it was left; the rest is removed.
    pub(crate) fn finished(&self) -> Result<Finished, DataError> {
        let finished = self.verified();
        let shards = finished.training.iter().chain(&finished.validation).map(|shard| shard.file.as_str());
        let kept: std::collections::HashSet<&str> =
            shards.chain([LOCK]).chain(finished.tokenizer.iter().flat_map(|_| [TOKENIZER, PROGRESS])).collect();
        for entry in fs_err::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                fs_err::remove_file(entry.path())?;
            }
        }
        Ok(finished)
    }

    fn verified(&self) -> Finished {
        let read = || -> Option<Finished> {
            let progress: Progress = serde_json::from_slice(&fs_err::read(self.dir.join(PROGRESS)).ok()?).ok()?;
            let path = self.dir.join(TOKENIZER);
            if hash_of(&path).ok()? != progress.tokenizer_hash {
                return None;
            }
            // Behind a shard that is damaged nothing fits.
            let whole = |shards: Vec<ShardManifest>| shards.into_iter().take_while(|shard| shard.damage(&self.dir).is_none()).collect();
            Some(Finished {
                tokenizer: Some(Tokenizer::load(&path).ok()?),
                training: whole(progress.training),
                validation: whole(progress.validation),
            })
        };
        read().unwrap_or_default()
    }

    /// Whether anything is noted as finished.
    pub(crate) fn has_progress(&self) -> bool {
        self.dir.join(PROGRESS).exists()
    }

    /// Notes what is finished. It must be on disk.
    pub(crate) fn note(&self, tokenizer_hash: &str, training: &[ShardManifest], validation: &[ShardManifest]) -> Result<(), DataError> {
        let progress = Progress { tokenizer_hash: tokenizer_hash.to_owned(), training: training.to_vec(), validation: validation.to_vec() };
        let beside = self.dir.join(format!(".{PROGRESS}"));
        write_synced(&beside, &serde_json::to_vec_pretty(&progress).expect("plain data serialises"))?;
        Ok(fs_err::rename(&beside, self.dir.join(PROGRESS))?)
    }

    /// Gives the folder its final name, which nothing has.
    pub(crate) fn rename(self, to: &Path) -> Result<(), DataError> {
        sync_folder(&self.dir)?;
        fs_err::rename(&self.dir, to)?;
        for name in [PROGRESS, LOCK] {
            fs_err::remove_file(to.join(name))?;
        }
        sync_folder(to.parent().unwrap_or(Path::new(".")))?;
        drop(self.lock);
        Ok(())
    }

    /// Removes the folder with all that is in it.
    pub(crate) fn remove(self) -> Result<(), DataError> {
        match fs_err::remove_dir_all(&self.dir) {
            // Somebody waits in it, and will find out that it is gone.
            Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether an open file is still the one at a path, and not one that was moved away or removed.
fn is_at(file: &fs_err::File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        file.file().metadata().ok().map(place) == path.metadata().ok().map(place)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut file = fs_err::File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    Ok(file.sync_all()?)
}

/// Makes what was renamed in a folder durable, where the platform can sync folders.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), DataError> {
    if cfg!(unix) {
        fs_err::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
