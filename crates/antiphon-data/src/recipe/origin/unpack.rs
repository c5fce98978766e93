//! From what was fetched to the files that the recipe names, each held against its SHA-256.
//!
//! Nothing is written under a name that an archive chose: members are looked up by the names that the recipe wants, and
//! everything else in an archive is passed over. Neither what was fetched nor a file in it is ever held whole in memory.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use antiphon_core::{Error, Problem};
use flate2::bufread::MultiGzDecoder;
use flate2::read::DeflateDecoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::Failure;
use crate::digest::Hashing;
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
/// So much of a file is in memory at a time.
const BUFFER: usize = 1 << 16;

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
                files.take(&plain.name, MultiGzDecoder::new(open(fetched)?))?;
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

    /// Writes a file of the recipe. It gets its name when all of it is there and is what the recipe means.
    fn take(&mut self, name: &str, content: impl Read) -> Result<(), Failure> {
        let Some(i) = self.missing.iter().position(|file| file.name == name) else { return Ok(()) };
        let file = self.missing.swap_remove(i);
        let path = self.root.join(name);
        let writing = |e| Failure::from(Error::io(&path, "write", &e));
        // Removed again, however this ends.
        let mut scratch = tempfile::NamedTempFile::new_in(self.root).map_err(writing)?;
        let mut content = Hashing::new(content);
        let (mut length, mut buffer) = (0, vec![0; BUFFER]);
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(damaged(e)),
            };
            length += n as u64;
            if length > MOST_BYTES {
                return Err(damaged(format!("a file in it is longer than {MOST_BYTES} bytes")));
            }
            scratch.write_all(&buffer[..n]).map_err(writing)?;
        }
        compare(file, &content.finish())?;
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(writing)?;
        scratch.persist(&path).map_err(|e| writing(e.error))?;
        Ok(())
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
                files.take(&name, entry)?;
            }
        }
        Ok(())
    }

    fn unpack_zip(&self, fetched: &Path, files: &mut Unpacked<'_>) -> Result<(), Failure> {
        let file = File::open(fetched).map_err(|e| Error::io(fetched, "read", &e))?;
        let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
        let archive = rawzip::ZipArchive::from_file(file, &mut buffer).map_err(damaged)?;
        let mut entries = archive.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().map_err(damaged)? {
            let member = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
            let Some(name) = self.file(&member).filter(|name| files.wants(name)) else { continue };
            let method = entry.compression_method();
            let entry = archive.get_entry(entry.wayfinder()).map_err(damaged)?;
            match method {
                rawzip::CompressionMethod::STORE => files.take(&name, entry.verifying_reader(entry.reader()))?,
                rawzip::CompressionMethod::DEFLATE => {
                    files.take(&name, entry.verifying_reader(DeflateDecoder::new(entry.reader())))?;
                }
                _ => {
                    let message = format!("`{member}` is compressed in a way that cannot be read here");
                    return Err(Failure::Final(message));
                }
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<std::io::BufReader<File>, Failure> {
    Ok(std::io::BufReader::new(File::open(path).map_err(|e| Error::io(path, "read", &e))?))
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Seek, SeekFrom};

    use rawzip::{CompressionMethod, ZipArchiveWriter};

    use super::*;
    use crate::digest::sha256;

    /// A member of this many bytes, all of them zero.
    fn add(archive: &mut ZipArchiveWriter<impl Write>, name: &str, method: CompressionMethod, length: u64) {
        let (mut entry, config) = archive.new_file(name).compression_method(method).start().unwrap();
        let fill =
            |mut writer: &mut dyn Write| std::io::copy(&mut std::io::repeat(0).take(length), &mut writer).unwrap();
        let descriptor = if method == CompressionMethod::STORE {
            let mut writer = config.wrap(&mut entry);
            fill(&mut writer);
            writer.finish().unwrap().1
        } else {
            let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
            fill(&mut writer);
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        };
        entry.finish(descriptor).unwrap();
    }

    /// What this process has held in memory at most so far, in bytes.
    fn peak() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Neither the archive, which begins with a hole on the disk, nor the files in it are held in memory.
    #[test]
    fn a_large_archive_takes_little_memory() {
        const HOLE: u64 = 256 << 20;
        const LENGTH: u64 = 128 << 20;
        let root = tempfile::tempdir().unwrap();
        let fetched = root.path().join("all.zip");
        let mut file = File::create(&fetched).unwrap();
        file.seek(SeekFrom::Start(HOLE)).unwrap();
        let mut archive = ZipArchiveWriter::builder().with_offset(HOLE).build(&mut file);
        add(&mut archive, "a/small", CompressionMethod::STORE, 3);
        add(&mut archive, "a/large", CompressionMethod::DEFLATE, LENGTH);
        archive.finish().unwrap();
        drop(file);
        let mut zeros = Hashing::new(std::io::repeat(0).take(LENGTH));
        std::io::copy(&mut zeros, &mut std::io::sink()).unwrap();
        let large = FileConfig { name: "p/large".into(), sha256: zeros.finish() };
        let small = FileConfig { name: "p/small".into(), sha256: sha256(&[0; 3]) };
        let before = peak();
        let content = Content::Zip(Archive { folder: "a".into(), into: "p".into() });
        content.unpack(&fetched, root.path(), &[&large, &small]).unwrap_or_else(|_| panic!("it can be unpacked"));
        let grown = peak() - before;
        assert!(grown < 64 << 20, "{grown} bytes more");
        let length = |name: &str| std::fs::metadata(root.path().join(name)).unwrap().len();
        assert_eq!((length("p/large"), length("p/small")), (LENGTH, 3));
    }
}
