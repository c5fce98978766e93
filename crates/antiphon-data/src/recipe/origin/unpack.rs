//! From what was fetched to the files that the recipe names, each held against its SHA-256.
//!
//! Nothing is written under a name that an archive chose: members are looked up by the names that the recipe wants, and
//! everything else in an archive is passed over.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use antiphon_core::{Error, Problem};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::Failure;
use crate::digest::{Hashing, sha256};
use crate::recipe::files::{FileConfig, is_inside};

/// What is fetched, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// One of the recipe's files.
    File(PlainFile),
    /// One of the recipe's files, compressed by gzip.
    Gzip(PlainFile),
    /// A tar archive, compressed by gzip.
    TarGz(Archive),
    /// A zip archive.
    Zip(Archive),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlainFile {
    /// Its name among `files`.
    pub name: String,
}

/// Many files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The folder inside of the archive.
    pub folder: String,
    /// What that folder is called in `files`.
    pub into: String,
}

/// No file and no archive is longer when it is unpacked.
const MOST_BYTES: u64 = 4 << 30;

impl Content {
    /// Whether it holds a file of the recipe.
    pub(super) fn holds(&self, file: &str) -> bool {
        match self {
            Self::File(plain) | Self::Gzip(plain) => plain.name == file,
            Self::TarGz(archive) | Self::Zip(archive) => archive.member(file).is_some(),
        }
    }

    /// The name of the file that is fetched; not a path, so that a failure leaves no folders behind.
    pub(super) fn fetched_name(&self) -> String {
        let (name, ending) = match self {
            Self::File(plain) => (&plain.name, ""),
            Self::Gzip(plain) => (&plain.name, ".gz"),
            Self::TarGz(archive) => (&archive.into, ".tar.gz"),
            Self::Zip(archive) => (&archive.into, ".zip"),
        };
        name.replace('/', "-") + ending
    }

    /// What is wrong with its settings.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let names = match self {
            Self::File(_) | Self::Gzip(_) => return Vec::new(),
            Self::TarGz(archive) | Self::Zip(archive) => [("folder", &archive.folder), ("into", &archive.into)],
        };
        let wrong = names.into_iter().filter(|(_, name)| !is_inside(name));
        let problem = |(key, name): (&str, &String)| Problem {
            place: key.into(),
            message: format!("`{name}` is not a plain relative path"),
        };
        wrong.map(problem).collect()
    }

    /// Puts the wanted files below `root`.
    pub(super) fn unpack(&self, fetched: &Path, root: &Path, wanted: &[&FileConfig]) -> Result<(), Failure> {
        let mut files = Unpacked { root, missing: wanted.to_vec() };
        match self {
            Self::File(_) => return move_file(fetched, root, wanted),
            Self::Gzip(plain) => {
                let bytes = limited(MultiGzDecoder::new(open(fetched)?)).map_err(damaged)?;
                files.take(&plain.name, &bytes)?;
            }
            Self::TarGz(archive) => archive.unpack_tar(fetched, &mut files)?,
            Self::Zip(archive) => archive.unpack_zip(fetched, &mut files)?,
        }
        files.finish()
    }
}

/// The files as they are found.
struct Unpacked<'a> {
    root: &'a Path,
    missing: Vec<&'a FileConfig>,
}

impl Unpacked<'_> {
    fn wants(&self, name: &str) -> bool {
        self.missing.iter().any(|file| file.name == name)
    }

    fn take(&mut self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let Some(i) = self.missing.iter().position(|file| file.name == name) else { return Ok(()) };
        let file = self.missing.swap_remove(i);
        compare(file, &sha256(bytes))?;
        let path = self.root.join(name);
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, bytes)
        };
        write().map_err(|e| Error::io(&path, "write", &e).into())
    }

    fn finish(self) -> Result<(), Failure> {
        match self.missing.iter().map(|file| file.name.as_str()).min() {
            None => Ok(()),
            Some(name) => {
                let count = self.missing.len();
                Err(Failure::Final(format!("{count} of the recipe's files are not in it, `{name}` for one")))
            }
        }
    }
}

impl Archive {
    /// The name inside of the archive of a file of the recipe, if it belongs there.
    fn member(&self, file: &str) -> Option<String> {
        let rest = file.strip_prefix(&self.into)?.strip_prefix('/')?;
        Some(format!("{}/{rest}", self.folder))
    }

    /// The recipe's name of a member.
    fn file(&self, member: &str) -> Option<String> {
        let rest = member.strip_prefix("./").unwrap_or(member).strip_prefix(&self.folder)?.strip_prefix('/')?;
        Some(format!("{}/{rest}", self.into))
    }

    fn unpack_tar(&self, fetched: &Path, files: &mut Unpacked<'_>) -> Result<(), Failure> {
        let decoder = MultiGzDecoder::new(open(fetched)?).take(MOST_BYTES);
        for entry in tar::Archive::new(decoder).entries().map_err(damaged)? {
            if files.missing.is_empty() {
                break;
            }
            let entry = entry.map_err(damaged)?;
            let member = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if let Some(name) = self.file(&member).filter(|name| files.wants(name))
                && entry.header().entry_type().is_file()
            {
                files.take(&name, &limited(entry).map_err(damaged)?)?;
            }
        }
        Ok(())
    }

    fn unpack_zip(&self, fetched: &Path, files: &mut Unpacked<'_>) -> Result<(), Failure> {
        let bytes = std::fs::read(fetched).map_err(|e| Error::io(fetched, "read", &e))?;
        let archive = rawzip::ZipArchive::from_slice(&bytes).map_err(damaged)?;
        let mut entries = archive.entries();
        while let Some(entry) = entries.next_entry().map_err(damaged)? {
            let member = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
            let Some(name) = self.file(&member).filter(|name| files.wants(name)) else { continue };
            let method = entry.compression_method();
            let entry = archive.get_entry(entry.wayfinder()).map_err(damaged)?;
            let content = match method {
                rawzip::CompressionMethod::STORE => limited(entry.verifying_reader(entry.data())),
                rawzip::CompressionMethod::DEFLATE => {
                    limited(entry.verifying_reader(DeflateDecoder::new(entry.data())))
                }
                _ => {
                    let message = format!("`{member}` is compressed in a way that cannot be read here");
                    return Err(Failure::Final(message));
                }
            };
            files.take(&name, &content.map_err(damaged)?)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<std::io::BufReader<File>, Failure> {
    Ok(std::io::BufReader::new(File::open(path).map_err(|e| Error::io(path, "read", &e))?))
}

/// All that is read, unless it is too much.
fn limited(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::other(format!("a file in it is longer than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}

fn move_file(fetched: &Path, root: &Path, wanted: &[&FileConfig]) -> Result<(), Failure> {
    let mut reader = Hashing::new(open(fetched)?);
    std::io::copy(&mut reader, &mut std::io::sink()).map_err(|e| Error::io(fetched, "read", &e))?;
    let found = reader.finish();
    for file in wanted {
        compare(file, &found)?;
        let path = root.join(&file.name);
        let place = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::rename(fetched, &path)
        };
        place().map_err(|e| Error::io(&path, "write", &e))?;
    }
    Ok(())
}

fn compare(file: &FileConfig, found: &str) -> Result<(), Failure> {
    if found == file.sha256 {
        return Ok(());
    }
    let FileConfig { name, sha256 } = file;
    Err(Failure::Final(format!("`{name}` is not the file that the recipe means: its SHA-256 is {found}, not {sha256}")))
}

fn damaged(error: impl std::fmt::Display) -> Failure {
    Failure::Final(format!("what arrived cannot be unpacked: {error}"))
}
