//! A file and all that it `extends`.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use antiphon_core::{Error, Place, Result};
use config::{Value, ValueKind};

use crate::layer::Layer;
use crate::origin::Origin;

/// The layers of `file`, lowest first: each file once, below everything that extends it.
pub(crate) fn layers(file: &Path) -> Result<Vec<Layer>> {
    let mut chain = Chain::default();
    chain.add(file, None)?;
    Ok(chain.layers)
}

#[derive(Default)]
struct Chain {
    layers: Vec<Layer>,
    done: Vec<PathBuf>,
    /// The files that are being read, each extending the next: as they are on disk and as they are named.
    open: Vec<(PathBuf, PathBuf)>,
}

impl Chain {
    /// Adds `file`, named at `from` if it is extended, after those that it extends.
    fn add(&mut self, file: &Path, from: Option<(&Path, usize)>) -> Result<()> {
        let blame = |error: Error| match from {
            Some((by, line)) => {
                let message = error.problems[0].message.clone();
                Error::new(format!("`{}`: {message}", file.display())).in_file(by).at(extends_at(line))
            }
            None => error.in_file(file),
        };
        let unreadable = |e: std::io::Error| {
            blame(match e.kind() {
                ErrorKind::NotFound => Error::new("no such file; check the path"),
                _ => Error::new(format!("cannot read it: {e}")),
            })
        };
        let real = file.canonicalize().map_err(unreadable)?;
        if let Some(at) = self.open.iter().position(|(open, _)| *open == real) {
            let circle: Vec<String> = self.open[at..].iter().map(|(_, name)| name.display().to_string()).collect();
            let circle = format!("{} -> {}", circle.join(" -> "), file.display());
            return Err(blame(Error::new(format!("extends itself: {circle}; break the circle"))));
        }
        if self.done.contains(&real) {
            return Ok(());
        }

        let bytes = std::fs::read(file).map_err(unreadable)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            Error::new("not valid UTF-8; save the file as UTF-8").in_file(file).at(Place::line(line))
        })?;
        let mut layer = Layer::parse(text, file)?;

        self.open.push((real.clone(), file.to_path_buf()));
        for (parent, line) in take_extends(&mut layer, file)? {
            let folder = file.parent().unwrap_or(Path::new(""));
            self.add(&tidy(&folder.join(parent)), Some((file, line)))?;
        }
        self.open.pop();
        self.done.push(real);
        self.layers.push(layer);
        Ok(())
    }
}

/// How an error names the `extends` on a line.
fn extends_at(line: usize) -> Place {
    Place::Key { key: "extends".into(), origin: Some(format!("line {line}")) }
}

/// Takes `extends` out of a layer: the files named, with the lines that name them.
fn take_extends(layer: &mut Layer, file: &Path) -> Result<Vec<(String, usize)>> {
    let ValueKind::Table(table) = &mut layer.root.kind else { return Ok(Vec::new()) };
    let Some(extends) = table.remove("extends") else { return Ok(Vec::new()) };
    let line = |value: &Value| match value.origin().and_then(Origin::from_tag) {
        Some(Origin::File { line, .. }) => line,
        _ => 1,
    };
    let first = line(&extends);
    let items = match extends.kind {
        ValueKind::Array(items) => items,
        _ => vec![extends],
    };
    items
        .into_iter()
        .map(|item| {
            let line = line(&item);
            match item.kind {
                ValueKind::String(path) => Ok((path, line)),
                _ => Err(Error::new("must be a file or a list of files, for example `\"../base.toml\"`")
                    .in_file(file)
                    .at(extends_at(first))),
            }
        })
        .collect()
}

/// The same path without `.` and, where nothing but plain names stand before it, without `..`. A link is left alone.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(tidy.components().next_back(), Some(Component::Normal(_))) => {
                if tidy.is_symlink() {
                    return path.to_path_buf();
                }
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}
