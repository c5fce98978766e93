//! Downloads, against a server on the loopback that does what servers do.

use std::io::Write;

use super::server::{Answer, Server};
use super::*;

const TEXT: &str = "a\tA\nb\tB\nc\tC\n";

/// A recipe with one file, `p/pairs.txt`, which is fetched in this way.
fn kitchen(urls: &[String], content: &str) -> Kitchen {
    sized(urls, content, "")
}

fn sized(urls: &[String], content: &str, size: &str) -> Kitchen {
    let origin = format!(
        "kind = 'download'\npage = 'https://example.org/'\n[[origin.downloads]]\nurls = {urls:?}\n{size}content = {content}"
    );
    Kitchen::new("tiny", &origin, &[("p/pairs.txt", TEXT)], PAIRS)
}

const FILE: &str = "{ kind = 'file', name = 'p/pairs.txt' }";

fn plain(answers: impl IntoIterator<Item = Answer>) -> (Server, Kitchen) {
    let server = Server::new(answers);
    let kitchen = kitchen(&[server.url("pairs.txt")], FILE);
    (server, kitchen)
}

/// The problem of a recipe whose download does not succeed, with the server's address written as `URL`.
fn problem(server: &Server, kitchen: &Kitchen) -> String {
    let text = kitchen.refused(None).replace(&server.url("pairs.txt"), "URL");
    let remedy = "\n  try again later, what has arrived is kept; or get the files from https://example.org/ and give their folder with --from DIR";
    let text = text.strip_suffix(remedy).unwrap_or_else(|| panic!("no remedy: {text}"));
    text.strip_prefix("R/data/.downloads/tiny/p-pairs.txt: ").unwrap_or_else(|| panic!("no file: {text}")).to_string()
}

/// Every file below the data folder.
fn left(kitchen: &Kitchen) -> Vec<String> {
    fn walk(folder: &Path, below: &str, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap()) {
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() { walk(&entry.path(), &(name + "/"), names) } else { names.push(name) }
        }
    }
    let mut names = Vec::new();
    walk(&kitchen.data(), "", &mut names);
    names.sort();
    names
}

const DONE: [&str; 3] = ["tiny/recipe.json", "tiny/train.tsv", "tiny/validation.tsv"];
const STARTED: [&str; 2] = [".downloads/tiny/p-pairs.txt.part", ".downloads/tiny/p-pairs.txt.part.json"];

#[test]
fn a_file_is_fetched_after_the_licence_is_shown() {
    let (server, kitchen) = plain([Answer::content(TEXT.as_bytes())]);
    let (prepared, log) = kitchen.prepare(None, "no-cargo");
    assert!(prepared.unwrap().fresh);
    let fetching = format!("fetching {}", server.url("pairs.txt"));
    assert_eq!(log[..3], ["tiny: Pairs of a test", "licence: CC0 (https://example.org/licence)", fetching.as_str()]);
    assert_eq!(kitchen.read("train.tsv"), "a\tA\nb\tB\n");
    assert_eq!(left(&kitchen), DONE);
    assert_eq!(server.asked(&["get", "range"]), [["get /pairs.txt http/1.1"]]);
    // It is there now: nothing is asked for again.
    assert!(!kitchen.prepare(None, "no-cargo").0.unwrap().fresh);
    assert_eq!(server.asked(&["get"]).len(), 1);
}

#[test]
fn what_is_given_is_not_fetched() {
    let (server, kitchen) = plain([]);
    kitchen.local().unwrap();
    assert_eq!((left(&kitchen), server.asked(&["get"]).len()), (DONE.map(String::from).to_vec(), 0));
}

#[test]
fn progress_is_told_in_bytes() {
    let (server, kitchen) = plain([Answer::content(TEXT.as_bytes())]);
    let recipe = Recipe::load(&kitchen.recipe()).unwrap();
    let mut heard = Heard::default();
    let tools = Tools { cargo: "no-cargo".as_ref(), patience: impatient() };
    recipe.prepare_with(&tools, kitchen.recipe().parent().unwrap(), None, &kitchen.data(), &mut heard).unwrap();
    let all = TEXT.len() as u64;
    assert_eq!(heard.progress.last().unwrap(), &("p-pairs.txt".to_string(), all, Some(all)), "{}", server.url(""));
}

#[test]
fn a_transfer_that_breaks_off_is_continued() {
    let content = TEXT.as_bytes().to_vec();
    let breaking = |after| Answer::Ranges { content: content.clone(), breaks_after: after };
    let (server, kitchen) = plain([breaking(5), breaking(0)]);
    let (prepared, log) = kitchen.prepare(None, "no-cargo");
    prepared.unwrap();
    assert!(
        log.iter().any(|line| line.contains("after 5 of 12 bytes") && line.ends_with("trying again in 1ms")),
        "{log:?}"
    );
    assert!(log.iter().any(|line| line.ends_with("going on after 5 bytes")), "{log:?}");
    assert_eq!(server.asked(&["range", "if-range"])[1], ["range: bytes=5-", "if-range: \"v1\""]);
    assert_eq!(left(&kitchen), DONE);
}

#[test]
fn the_next_attempt_continues_what_the_last_one_left() {
    let truncated = || Answer::claiming(TEXT.len(), b"a\tA\nb");
    let (server, kitchen) = plain([truncated(), Answer::status("503 Service Unavailable"), truncated()]);
    // The third answer is whole again from its first byte, since this server knows no ranges.
    let message = problem(&server, &kitchen);
    assert!(message.starts_with("URL: ") && message.contains("after 5 of 12 bytes"), "{message}");
    assert!(message.ends_with("(3 attempts)"), "{message}");
    assert_eq!(left(&kitchen), STARTED);
    assert_eq!(std::fs::read(kitchen.data().join(STARTED[0])).unwrap(), b"a\tA\nb");

    let again = Server::new([Answer::Ranges { content: TEXT.into(), breaks_after: 0 }]);
    let recipe = std::fs::read_to_string(kitchen.recipe()).unwrap();
    write(&kitchen.recipe(), &recipe.replace(&server.url(""), &again.url("")));
    kitchen.prepare(None, "no-cargo").0.unwrap();
    // Another server: it cannot know the first one's names, but the whole is checked in the end.
    assert_eq!(again.asked(&["range", "if-range"]), [["range: bytes=5-"]]);
    assert_eq!(left(&kitchen), DONE);
}

#[test]
fn a_server_without_ranges_sends_everything_again() {
    let (server, kitchen) = plain([Answer::claiming(TEXT.len(), b"a\tA\nb\t"), Answer::content(TEXT.as_bytes())]);
    kitchen.local().unwrap();
    std::fs::remove_dir_all(kitchen.data()).unwrap();
    kitchen.prepare(None, "no-cargo").0.unwrap();
    assert_eq!(server.asked(&["range"]), [vec![], vec!["range: bytes=6-".to_string()]]);
    assert_eq!(left(&kitchen), DONE);
}

#[test]
fn a_range_that_is_refused_or_another_begins_anew() {
    for wrong in [
        Answer::status("416 Range Not Satisfiable"),
        Answer::Raw(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-11/12\r\nContent-Length: 12\r\nConnection: close\r\n\r\na\tA\nb\tB\nc\tC\n".to_vec()),
    ] {
        let (server, kitchen) = plain([Answer::claiming(TEXT.len(), b"a\tA"), wrong, Answer::content(TEXT.as_bytes())]);
        kitchen.prepare(None, "no-cargo").0.unwrap();
        assert_eq!(server.asked(&["range"])[1..], [vec!["range: bytes=3-".to_string()], vec![]]);
        assert_eq!(left(&kitchen), DONE);
    }
}

#[test]
fn pieces_that_do_not_belong_together_are_fetched_once_more() {
    let (server, kitchen) = plain([
        Answer::claiming(TEXT.len(), b"other"),
        Answer::Ranges { content: TEXT.into(), breaks_after: 0 },
        Answer::content(TEXT.as_bytes()),
    ]);
    kitchen.prepare(None, "no-cargo").0.unwrap();
    assert_eq!(server.asked(&["range"]), [vec![], vec!["range: bytes=5-".to_string()], vec![]]);
    assert_eq!(left(&kitchen), DONE);
}

#[test]
fn wrong_bytes_are_refused_and_thrown_away() {
    let (server, kitchen) = plain([Answer::content(b"a\tA\nb\tB\nc\tX\n")]);
    let (found, meant) = (sha256(b"a\tA\nb\tB\nc\tX\n"), sha256(TEXT.as_bytes()));
    assert_eq!(
        problem(&server, &kitchen),
        format!("URL: `p/pairs.txt` is not the file that the recipe means: its SHA-256 is {found}, not {meant}")
    );
    assert!(left(&kitchen).is_empty());
    assert!(kitchen.listing("data").is_empty());
}

#[test]
fn another_length_is_refused_before_anything_is_fetched() {
    let server = Server::new([Answer::content(b"too long, surely")]);
    let kitchen = sized(&[server.url("pairs.txt")], FILE, "size = 12\n");
    assert_eq!(problem(&server, &kitchen), "URL: the server offers 16 bytes, but the recipe means 12");
    assert!(left(&kitchen).is_empty());
}

#[test]
fn a_server_that_falls_silent_is_left() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\na\tA\n";
    let stalls = [Answer::Stall(head.to_vec()), Answer::Stall(vec![]), Answer::Stall(vec![])];
    let (server, kitchen) = plain(stalls);
    let (prepared, log) = kitchen.prepare(None, "no-cargo");
    assert!(
        log.iter().any(|line| line.starts_with("after 4 of 12 bytes: the server sent nothing for 300ms")),
        "{log:?}"
    );
    let message = prepared.unwrap_err().to_string();
    assert!(message.contains("the server sent nothing for 300ms (3 attempts)"), "{message} {}", server.url(""));
    assert_eq!(left(&kitchen), STARTED);
}

#[test]
fn a_passing_failure_is_waited_for_and_a_final_one_is_not() {
    let (server, kitchen) = plain([
        Answer::status("500 Internal Server Error"),
        Answer::status("429 Too Many Requests"),
        Answer::content(TEXT.as_bytes()),
    ]);
    kitchen.prepare(None, "no-cargo").0.unwrap();
    assert_eq!(server.asked(&["get"]).len(), 3);

    let (server, kitchen) = plain([]);
    assert_eq!(problem(&server, &kitchen), "URL: the server answers 404 Not Found");
    assert_eq!(server.asked(&["get"]).len(), 1);
    assert!(left(&kitchen).is_empty());
}

#[test]
fn redirects_are_followed_but_not_forever() {
    let (server, kitchen) = plain([Answer::redirect("/elsewhere"), Answer::content(TEXT.as_bytes())]);
    kitchen.prepare(None, "no-cargo").0.unwrap();
    assert_eq!(server.asked(&["get"]), [["get /pairs.txt http/1.1"], ["get /elsewhere http/1.1"]]);

    let (server, kitchen) = plain((0..20).map(|_| Answer::redirect("/pairs.txt")));
    assert_eq!(problem(&server, &kitchen), "URL: it is redirected more than 5 times");
    assert!(server.asked(&["get"]).len() <= 7);
    assert!(left(&kitchen).is_empty());
}

#[test]
fn the_next_address_is_tried_and_all_failures_are_told() {
    let (bad, good) = (Server::new([]), Server::new([Answer::content(TEXT.as_bytes())]));
    let two = kitchen(&[bad.url("x"), good.url("y")], FILE);
    two.prepare(None, "no-cargo").0.unwrap();

    // A port where nobody listens.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (gone, closed) = (bad.url("x"), format!("http://{closed}/y"));
    let none = kitchen(&[gone.clone(), closed.clone()], FILE);
    let message = none.refused(None);
    assert!(message.contains("p-pairs.txt: 2 problems\n"), "{message}");
    assert!(message.contains(&format!("\n  {gone}: the server answers 404 Not Found\n")), "{message}");
    assert!(message.contains(&format!("\n  {closed}: ")) && message.contains("refused"), "{message}");
    assert!(left(&none).is_empty());
}

#[test]
fn two_processes_do_not_fetch_into_one_file() {
    let (server, kitchen) = plain([]);
    let part = kitchen.data().join(STARTED[0]);
    write(&part, "");
    let held = std::fs::File::open(&part).unwrap();
    held.lock().unwrap();
    assert_eq!(
        kitchen.refused(None),
        format!("R/data/{}: another process is fetching this: wait until it is done", STARTED[0])
    );
    assert!(server.asked(&["get"]).is_empty());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_file_is_unpacked() {
    let server = Server::new([Answer::content(&gzip(TEXT.as_bytes())), Answer::content(b"not gzip")]);
    let content = "{ kind = 'gzip', name = 'p/pairs.txt' }";
    let kitchen = kitchen(&[server.url("pairs.txt.gz")], content);
    kitchen.prepare(None, "no-cargo").0.unwrap();
    assert_eq!(left(&kitchen), DONE);
    std::fs::remove_dir_all(kitchen.data()).unwrap();
    let message = kitchen.refused(None);
    assert!(message.contains("p-pairs.txt.gz: ") && message.contains("what arrived cannot be unpacked: "), "{message}");
    assert!(left(&kitchen).is_empty());
}

/// A tar archive of these files; the name is taken as it is.
fn tar_gz(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        // `set_path` would refuse what an attacker would not.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        archive.append(&header, text.as_bytes()).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    archive.append_link(&mut link, "a-1/link", "/etc/passwd").unwrap();
    gzip(&archive.into_inner().unwrap())
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, text) in files {
        let name = rawzip::path::EntryPath::verbatim(name.as_bytes());
        let deflate = rawzip::CompressionMethod::DEFLATE;
        let (mut entry, config) = archive.new_file(name).compression_method(deflate).start().unwrap();
        let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast());
        let mut writer = config.wrap(encoder);
        writer.write_all(text.as_bytes()).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

#[test]
fn of_an_archive_only_what_the_recipe_names_is_written() {
    let files = [
        ("../../../evil", "out"),
        ("/evil", "out"),
        ("a-1/../evil", "out"),
        ("a-1/more", "not asked for"),
        ("a-1/d/pairs.txt", TEXT),
        ("b/d/pairs.txt", "another"),
    ];
    for (kind, bytes) in [("tar_gz", tar_gz(&files)), ("zip", zip(&files))] {
        let server = Server::new([Answer::content(&bytes)]);
        let origin = format!(
            "kind = 'download'\npage = 'https://example.org/'\n[[origin.downloads]]\nurls = ['{}']\n\
             content = {{ kind = '{kind}', folder = 'a-1/d', into = 'p' }}",
            server.url("all")
        );
        let kitchen = Kitchen::new("tiny", &origin, &[("p/pairs.txt", TEXT)], PAIRS);
        kitchen.prepare(None, "no-cargo").0.unwrap();
        assert_eq!(left(&kitchen), DONE, "{kind}");
        assert_eq!(kitchen.listing(""), ["data", "from", "recipes"], "{kind}");
    }
}

#[test]
fn an_archive_without_a_file_or_with_another_is_refused() {
    for (kind, pack) in [("tar_gz", tar_gz as fn(&[(&str, &str)]) -> Vec<u8>), ("zip", zip)] {
        let content = format!("{{ kind = '{kind}', folder = 'a', into = 'p' }}");
        let whole = pack(&[("a/pairs.txt", TEXT)]);
        for (bytes, expected) in [
            (pack(&[("a/other", TEXT)]), "1 of the recipe's files are not in it, `p/pairs.txt` for one"),
            (pack(&[("a/pairs.txt", "x\ty\n")]), "`p/pairs.txt` is not the file that the recipe means"),
            (whole[..whole.len() / 2].to_vec(), "what arrived cannot be unpacked"),
        ] {
            let server = Server::new([Answer::content(&bytes)]);
            let kitchen = kitchen(&[server.url("all")], &content);
            let message = kitchen.refused(None);
            assert!(message.contains(expected), "{kind}: {message}");
            assert!(left(&kitchen).is_empty(), "{kind}: {:?}", left(&kitchen));
        }
    }
}

#[test]
fn an_archive_is_continued_only_where_the_server_says_that_it_is_the_same() {
    let bytes = tar_gz(&[("a/pairs.txt", TEXT)]);
    let content = "{ kind = 'tar_gz', folder = 'a', into = 'p' }";
    let named = [30, 0].map(|breaks_after| Answer::Ranges { content: bytes.clone(), breaks_after });
    let nameless = [Answer::claiming(bytes.len(), &bytes[..30]), Answer::content(&bytes)];
    for (answers, second) in [(named, vec!["range: bytes=30-", "if-range: \"v1\""]), (nameless, vec![])] {
        let server = Server::new(answers);
        let kitchen = kitchen(&[server.url("all")], content);
        kitchen.prepare(None, "no-cargo").0.unwrap();
        assert_eq!(server.asked(&["range", "if-range"])[1], second);
        assert_eq!(left(&kitchen), DONE);
    }
}

#[test]
fn a_download_with_mistakes_is_refused_completely() {
    let origin = "kind = 'download'\npage = 'https://example.org/'\n\
         [[origin.downloads]]\nurls = []\ncontent = { kind = 'file', name = 'x' }\n\
         [[origin.downloads]]\nurls = ['ftp://a']\ncontent = { kind = 'zip', folder = '../a', into = 'p' }";
    let kitchen = Kitchen::new("tiny", origin, &[("p/pairs.txt", TEXT), ("q", "")], PAIRS);
    assert_eq!(
        kitchen.short(&Recipe::load(&kitchen.recipe()).unwrap_err().to_string()),
        "R/recipes/tiny/recipe.toml: 5 problems\n  \
         origin.downloads[0].urls: the list is empty: name an address\n  \
         origin.downloads[0].content: holds none of `files`\n  \
         origin.downloads[1].urls[0]: `ftp://a` does not begin with https:// or http://\n  \
         origin.downloads[1].content.folder: `../a` is not a plain relative path\n  \
         origin.downloads: none holds `q`"
    );
}
