//! Recipes, called from the command line.

use crate::place::{Place, shown};

#[test]
fn a_recipe_is_found_upward_and_its_data_can_be_trained_on() {
    let place = Place::new();
    let sha256 = antiphon_lab::sha256_file(place.path("data/train.tsv")).unwrap();
    let recipe = format!(
        "title = \"words\"\n[licence]\nname = \"free\"\nsource = \"here\"\n[origin]\nkind = \"local\"\nsource = \"there\"\n\
         [[files]]\nname = \"train.tsv\"\nsha256 = \"{sha256}\"\n\
         [[preparation]]\nkind = \"pairs_by_lines\"\nfile = \"train.tsv\"\ntrain = 300\nvalidation = 20\n"
    );
    place.write("recipes/words/recipe.toml", recipe);
    place.write("inside/of/it.txt", "");

    assert!(place.call("data wrods").refuses().ends_with("no recipe `wrods`; there are words"));
    assert!(place.call("data words").refuses().contains("there"), "where the files are to be had");
    let called = place.call("data words --from data --data-dir prepared");
    assert!(called.err().contains("licence: free (here)"), "{}", called.err());
    let out = called.succeeds();
    assert!(out.contains("prepared/words/train.tsv  300 lines\n"), "{out}");
    // From deeper inside, a second time: everything is there.
    let mut command = place.command("data words --data-dir");
    command.arg(place.path("prepared")).current_dir(place.path("inside/of"));
    let called = crate::place::Called(command.output().unwrap());
    assert!(called.err().contains("already prepared"), "{}", called.err());
    called.succeeds();

    let data = "data={replace=true,kind='pairs',train='words/train.tsv',validation='words/validation.tsv'}";
    let mut command = place.command(&format!("train tiny.toml -q --set train.epochs=1 --set {data}"));
    let output = command.env("ANTIPHON_DATA_DIR", "prepared").output().unwrap();
    crate::place::Called(output).succeeds();
    let manifest = String::from_utf8(place.read(&format!("{}/manifest.json", place.only_run()))).unwrap();
    assert!(manifest.contains("\"words/train.tsv\"") && !manifest.contains(&shown(&place.path(""))), "{manifest}");
}

/// Serves a text once; → its address.
#[cfg(unix)]
pub(crate) fn served(text: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/words.tsv", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let length = text.len();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}");
    });
    url
}

/// A recipe whose one file is fetched from this address.
pub(crate) fn downloaded(url: &str, text: &str) -> String {
    let place = Place::new();
    place.write("whole.tsv", text);
    let sha256 = antiphon_lab::sha256_file(place.path("whole.tsv")).unwrap();
    format!(
        "title = \"words\"\nlicence = {{ name = \"free\", source = \"here\" }}\n[origin]\nkind = \"download\"\npage = \"there\"\n\
         [[origin.downloads]]\nurls = [\"{url}\"]\ncontent = {{ kind = \"file\", name = \"words.tsv\" }}\n\
         [[files]]\nname = \"words.tsv\"\nsha256 = \"{sha256}\"\n\
         [[preparation]]\nkind = \"pairs_by_lines\"\nfile = \"words.tsv\"\ntrain = 1\nvalidation = 1\n"
    )
}

#[test]
fn a_download_that_fails_says_what_to_do_and_one_that_succeeds_is_prepared() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/words.tsv", listener.local_addr().unwrap());
    let text = "a\tb\nc\td\n";
    std::thread::spawn(move || {
        let answers = ["404 Not Found\r\nContent-Length: 0\r\n\r\n", "200 OK\r\nContent-Length: 8\r\n\r\na\tb\nc\td\n"];
        for (stream, answer) in listener.incoming().zip(answers) {
            let mut stream = stream.unwrap();
            // One read holds the whole request: it is short.
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        }
    });
    let place = Place::new();
    place.write("recipes/words/recipe.toml", downloaded(&url, text));
    let answer = place.call("data words").refuses();
    assert_eq!(
        answer,
        format!(
            "error: data/.downloads/words/words.tsv: {url}: the server answers 404 Not Found\n  \
             try again later, what has arrived is kept; or get the files from there and give their folder with --from DIR"
        )
    );
    let called = place.call("data words");
    let err = called.err();
    let (licence, fetching) = (err.find("licence: free (here)"), err.find(&format!("fetching {url}")));
    assert!(licence.is_some() && licence < fetching, "{err}");
    assert!(called.succeeds().contains("data/words/train.tsv  1 lines"));
    assert!(!place.path("data/.downloads").exists());
}

#[test]
fn what_splits_have_in_common_is_told() {
    let place = Place::new();
    place.write("data/train.tsv", "a\tA\nb\tB\none two three four five six\tC\n");
    place.write("data/validation.tsv", "a\tA\na\tB\nc\tA\nOne two three four five six?\tA\n");
    place.write("data/test.tsv", "d\tA\n");
    let out = place.call("data tiny.toml").succeeds();
    assert_eq!(
        out,
        "            examples  source in train  all in train  a long line in train\n\
         validation  4         2 (50.0 %)       1 (25.0 %)    1 (25.0 %)\n\
         test        1         0 (0.0 %)        0 (0.0 %)     0 (0.0 %)\n"
    );
    // A text has no source.
    place.write("data/train.txt", "a\nb b b b b b\n");
    place.write("data/validation.txt", "a\nB b b b b b.\n");
    let set = "--set data={replace=true,kind='text',train='train.txt',validation='validation.txt'}";
    let set = format!("{set} --set model={{replace=true,kind='language_model'}}");
    let out = place.call(&format!("data tiny.toml {set}")).succeeds();
    assert!(out.ends_with("validation  2         -                1 (50.0 %)    1 (50.0 %)\n"), "{out}");
    let alone = "--set data={replace=true,kind='pairs',train='train.tsv'}";
    assert!(place.call(&format!("data tiny.toml {alone}")).refuses().contains("names neither validation nor test"));
    assert!(place.call("data tiny.toml --from data").refuses().contains("--from: "));
    place.write("recipes/words/recipe.toml", "");
    assert!(place.call("data words --set seed=1").refuses().contains("--set: "));
    assert!(place.call("data none.toml").refuses().contains("none.toml"));
    std::fs::remove_file(place.path("data/test.tsv")).unwrap();
    assert!(place.call("data tiny.toml").refuses().contains("data/test.tsv"));
}
