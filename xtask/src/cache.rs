//! The cache: everything that is downloaded or built outside `target/`.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The cache directory: `$XDG_CACHE_HOME/socklife`, else `$HOME/.cache/socklife`.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => home()?.join(".cache"),
    };
    let root = base.join("socklife");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    Ok(root)
}

fn home() -> Result<PathBuf> {
    let home = std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .context("HOME is not set; set it or XDG_CACHE_HOME")?;
    // A sudo that keeps HOME would leave root's files in the user's home.
    let foreign = is_root() && fs::metadata(&home).is_ok_and(|home| home.uid() != 0);
    Ok(if foreign { PathBuf::from("/root") } else { home })
}

/// A directory in the cache, created if need be.
pub fn dir(name: impl AsRef<Path>) -> Result<PathBuf> {
    let dir = root()?.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Makes the directory `name` by `fill`, all or nothing: it has that name only once it is whole.
pub fn make_dir(name: impl AsRef<Path>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let target = root()?.join(name);
    let temporary = temporary_beside(&target)?;
    fs::create_dir(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
    let result = fill(&temporary).and_then(|()| replace(&temporary, &target));
    if result.is_err() {
        // The error that matters is the one already at hand.
        let _ = fs::remove_dir_all(&temporary);
    }
    result.map(|()| target)
}

/// Writes a file, all or nothing.
pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_beside(target)?;
    fs::write(&temporary, bytes).with_context(|| format!("cannot write {}", temporary.display()))?;
    replace(&temporary, target)
}

/// Moves a whole file or directory to its name.
pub fn replace(temporary: &Path, target: &Path) -> Result<()> {
    if target.is_dir() {
        fs::remove_dir_all(target).with_context(|| format!("cannot remove {}", target.display()))?;
    }
    fs::rename(temporary, target)
        .with_context(|| format!("cannot rename {} to {}", temporary.display(), target.display()))
}

fn temporary_beside(target: &Path) -> Result<PathBuf> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}", std::process::id()));
    if temporary.is_dir() {
        fs::remove_dir_all(&temporary).with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    Ok(temporary)
}
