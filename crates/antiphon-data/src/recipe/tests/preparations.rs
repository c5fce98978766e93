//! What the preparations of whole corpora make of small files in their formats.

use super::*;

#[test]
fn padded_pairs_are_cut_at_their_separator() {
    let rest = "[[preparation]]\nkind = 'pairs_by_lines'\nfile = 's'\nseparator = '_'\ntrain = 1\nvalidation = 1\ntest = 1\ninto = 'sum'";
    let kitchen = Kitchen::new("tiny", LOCAL, &[("s", "16+75  _91  \n5+6    _11  \n1+1_2\n")], rest);
    kitchen.local().unwrap();
    assert_eq!(kitchen.read("sum/train.tsv"), "16+75\t91\n");
    assert_eq!(
        (kitchen.read("sum/validation.tsv"), kitchen.read("sum/test.tsv")),
        ("5+6\t11\n".into(), "1+1\t2\n".into())
    );
    for (line, fault) in [
        ("16+75", "no `_` between two texts"),
        ("1_2_3", "more than one `_`"),
        ("1_  ", "a side of `_` is empty, or holds a tab"),
    ] {
        let text = format!("1_2\n{line}\n1_2\n");
        let bad = Kitchen::new("tiny", LOCAL, &[("s", text.as_str())], rest);
        assert_eq!(bad.refused(Some(&bad.from())), format!("R/from/s: line 2: {fault}"));
    }
}

#[test]
fn a_text_is_cut_by_its_characters() {
    let rest = "[[preparation]]\nkind = 'text_by_share'\nfile = 't'\ntrain_percent = 90";
    let kitchen = Kitchen::new("tiny", LOCAL, &[("t", "äöü\n\nabcdefg\nhïj")], rest);
    let (prepared, log) = kitchen.prepare(Some(&kitchen.from()), "");
    prepared.unwrap();
    assert_eq!((kitchen.read("train.txt"), kitchen.read("validation.txt")), ("äöü\n\nabcdefg\nh".into(), "ïj".into()));
    assert!(
        log.contains(&"train: 14 characters".into()) && log.contains(&"validation: 2 characters".into()),
        "{log:?}"
    );
    let short = Kitchen::new("tiny", LOCAL, &[("t", "a")], rest);
    assert_eq!(short.refused(Some(&short.from())), "R/from/t: 1 characters: too few to be cut in two");
    let three = format!("{rest}\nvalidation_characters = 3");
    let kitchen = Kitchen::new("tiny", LOCAL, &[("t", "äöü\n\nabcdefg\nhïj")], &three);
    kitchen.local().unwrap();
    let parts = ["train.txt", "validation.txt", "test.txt"].map(|name| kitchen.read(name));
    assert_eq!(parts, ["äöü\n\nabcdef", "g\nh", "ïj"]);
    let short = Kitchen::new("tiny", LOCAL, &[("t", "abc")], &three);
    assert_eq!(short.refused(Some(&short.from())), "R/from/t: 3 characters: too few to be cut in three");
    let none = Kitchen::new("tiny", LOCAL, &[("t", "abc")], &three.replace("= 3", "= 0"));
    let error = none.short(&Recipe::load(&none.recipe()).unwrap_err().to_string());
    assert_eq!(error, "R/recipes/tiny/recipe.toml: preparation[0].validation_characters: must be at least 1, got 0");
    let over = Kitchen::new("tiny", LOCAL, &[("t", "a")], &rest.replace("90", "100"));
    let error = over.short(&Recipe::load(&over.recipe()).unwrap_err().to_string());
    assert_eq!(error, "R/recipes/tiny/recipe.toml: preparation[0].train_percent: must be from 1 to 99, got 100");
}

#[test]
fn inflections_become_tables_with_lemma_and_features_as_words() {
    let rest = "[[preparation]]\nkind = 'inflections'\ncopies = [{ from = 's', to = 'x/train.tsv' }]";
    let kitchen = Kitchen::new("tiny", LOCAL, &[("s", "öl bul\töl buldu\tV;PST;3\nN\tNs\tN;PL\n")], rest);
    let (prepared, log) = kitchen.prepare(Some(&kitchen.from()), "");
    prepared.unwrap();
    assert!(log.contains(&"x/train.tsv: 2 forms".into()), "{log:?}");
    assert_eq!(
        kitchen.read("x/train.tsv"),
        "lemma\tform\tfeatures\tsymbols\nöl bul\töl buldu\tV;PST;3\tö l ␣ b u l +V +PST +3\nN\tNs\tN;PL\tN +N +PL\n"
    );
    let bad = Kitchen::new("tiny", LOCAL, &[("s", "a\tb\tN\na\tb\n")], rest);
    assert_eq!(
        bad.refused(Some(&bad.from())),
        "R/from/s: line 2: 2 cells, where a lemma, a form and its features should be"
    );
}

const STORIES: &str = "1 Zug left.\n2 Where is Zug? \taway\t1\n3 \"Zug\" came.\n4 Where is Zug? \there\t3 1\n\
    1 Pim sat.\n2 Does Pim sit?\tyes\t1\n1 Pim rose.\n2 Does Pim sit?\tno\t1\n";

#[test]
fn a_question_is_asked_after_all_that_was_told_and_nothing_else() {
    let rest = "[[preparation]]\nkind = 'stories'\nvalidation = 2\njoint = 'all'\n\
        tasks = [{ name = 'qa1', train = 's', test = 't' }, { name = 'qa2', train = 'u', test = 't' }]";
    let other = "1 Q.\n2 A?\tb\n1 C.\n2 D?\te\n1 F.\n2 G?\th\n";
    let files = [("s", STORIES), ("t", "1 Pim ran.\n2 Who ran?\tPim,Zug\t1\n"), ("u", other)];
    let kitchen = Kitchen::new("tiny", LOCAL, &files, rest);
    let (prepared, log) = kitchen.prepare(Some(&kitchen.from()), "");
    prepared.unwrap();
    assert!(log.contains(&"qa1/train: 2 questions, 1 stories".into()), "{log:?}");
    let row = |story: &str, question: &str, answer: &str, support: &str, task: &str| {
        format!(
            "{{\"story\":[{story}],\"question\":\"{question}\",\"answer\":\"{answer}\",\"support\":[{support}],\"task\":\"{task}\"}}\n"
        )
    };
    // The third line is the second statement.
    let train = row(r#""Zug left.""#, "Where is Zug?", "away", "1", "qa1")
        + &row(r#""Zug left.","\"Zug\" came.""#, "Where is Zug?", "here", "2,1", "qa1");
    let validation = row(r#""Pim sat.""#, "Does Pim sit?", "yes", "1", "qa1")
        + &row(r#""Pim rose.""#, "Does Pim sit?", "no", "1", "qa1");
    let test = |task: &str| row(r#""Pim ran.""#, "Who ran?", "Pim,Zug", "1", task);
    let of_other = [("Q", "A", "b"), ("C", "D", "e"), ("F", "G", "h")];
    let of_other = of_other.map(|(s, q, a)| row(&format!("\"{s}.\""), &format!("{q}?"), a, "", "qa2"));
    let [first, others @ ..] = &of_other;
    for (file, of_one, of_two) in [
        ("train", train, first.clone()),
        ("validation", validation, others.concat()),
        ("test", test("qa1"), test("qa2")),
    ] {
        let read = |folder: &str| kitchen.read(&format!("{folder}/{file}.jsonl"));
        assert_eq!([read("qa1"), read("qa2"), read("all")], [of_one.clone(), of_two.clone(), of_one + &of_two]);
    }
    for (text, fault) in [
        ("2 Pim ran.\n", "line 1: a story begins with line 1"),
        ("1 Pim ran.\nx y\n", "line 2: does not begin with a number"),
        ("1 Pim ran.\n2 Who?\t\t1\n", "line 2: a question or its answer is missing"),
        ("1\n", "line 1: no number before a text"),
        ("1 A.\n2 B?\tc\t1\n", "too few stories to hold out 2 questions"),
        ("1 A.\n2 B?\tc\t1 2\n", "line 2: `2` is no line of a statement before the question"),
        ("1 A.\n2 B?\tc\tx\n", "line 2: `x` is no line of a statement before the question"),
        ("1 A.\n1 B?\tc\t1\n", "line 2: `1` is no line of a statement before the question"),
    ] {
        let bad = Kitchen::new("tiny", LOCAL, &[("s", text), ("t", ""), ("u", "")], rest);
        assert_eq!(bad.refused(Some(&bad.from())), format!("R/from/s: {fault}"));
    }
    let twice = Kitchen::new("tiny", LOCAL, &files, &rest.replace("'all'", "'qa2'"));
    let error = twice.short(&Recipe::load(&twice.recipe()).unwrap_err().to_string());
    assert_eq!(error, "R/recipes/tiny/recipe.toml: preparation[0].joint: `qa2/train.jsonl` is written already");
    let none = "[[preparation]]\nkind = 'stories'\nvalidation = 2\ntasks = []";
    let none = Kitchen::new("tiny", LOCAL, &files, none);
    let error = none.short(&Recipe::load(&none.recipe()).unwrap_err().to_string());
    assert_eq!(error, "R/recipes/tiny/recipe.toml: preparation[0].tasks: the list is empty: name a task");
}

const DIALOGS: &str = "1 hi\thello\n2 <SILENCE>\tcall zug\n3 zug R_phone 12\n4 well\tzug is 12 zug\n\n\n1 pim R_food  stew\n2 hey\tstew soup\n";

#[test]
fn a_reply_has_what_was_said_and_looked_up_before_it() {
    let rest = "[[preparation]]\nkind = 'dialogs'\nfacts = 'all'\n\
        tasks = [{ name = 'task5', train = 'a', validation = 'b', test = 'b', test_oov = 'a' }]";
    let others = [("b", "1 hi\tbye\n"), ("all", "1 pim R_food\tsoup\n")];
    let of =
        |dialogs: &str, rest: &str| Kitchen::new("tiny", LOCAL, &[[("a", dialogs)].as_slice(), &others].concat(), rest);
    let kitchen = of(DIALOGS, rest);
    let (prepared, log) = kitchen.prepare(Some(&kitchen.from()), "");
    prepared.unwrap();
    let row = |dialog: usize, turn: usize, context: &str, facts: &str, response: &str, entities: &str| {
        format!(
            "{{\"dialog\":{dialog},\"turn\":{turn},\"context\":[{context}],\"facts\":[{facts}],\"response\":\"{response}\",\"entities\":[{entities}]}}\n"
        )
    };
    let expected = row(1, 1, r#""hi""#, "", "hello", "")
        // Nobody has heard of it yet.
        + &row(1, 2, r#""hi","hello","<SILENCE>""#, "", "call zug", "")
        + &row(
            1,
            3,
            r#""hi","hello","<SILENCE>","call zug","well""#,
            r#""zug R_phone 12""#,
            "zug is 12 zug",
            r#""zug","12""#,
        )
        + &row(2, 1, r#""hey""#, r#""pim R_food stew""#, "stew soup", r#""stew","soup""#);
    assert_eq!(kitchen.read("task5/train.jsonl"), expected);
    assert_eq!(kitchen.read("task5/test-oov.jsonl"), expected);
    assert_eq!(kitchen.read("task5/test.jsonl"), row(1, 1, r#""hi""#, "", "bye", ""));
    assert!(log.contains(&"task5/train: 4 replies, 2 dialogs".into()), "{log:?}");
    for (text, fault) in [
        ("1 hi\t\n", "line 1: the user's words or the reply are missing"),
        ("1 hi\tho\tha\n", "line 1: not `user<TAB>bot`: it has more than one tab"),
        ("1 hi\tho\n2 hey\n", "line 2: neither `user<TAB>bot` nor `name relation value`"),
        ("hi there\n", "line 1: does not begin with a number"),
        ("1\n", "line 1: no number before a text"),
        ("1 hi\tho\n\n2 hi\tho\n", "line 3: the dialog begins with line 2, where line 1 should be"),
        ("1 hi\tho\n3 hi\tho\n", "line 2: the dialog goes on with line 3, where line 2 should be"),
        ("1 a b c\n2 a b d\n", "line 2: the dialog has no reply"),
        ("", "no dialog can be used"),
    ] {
        let bad = of(text, rest);
        assert_eq!(bad.refused(Some(&bad.from())), format!("R/from/a: {fault}"));
    }
    // Bad dialogs are left out whole; the others keep their numbers.
    let skips = of(&format!("1 hi\tho\n2 hey\n\n{DIALOGS}"), &rest.replace("facts", "on_bad_dialog = 'skip'\nfacts"));
    let (prepared, log) = skips.prepare(Some(&skips.from()), "");
    prepared.unwrap();
    let later = expected.replace("\"dialog\":2", "\"dialog\":3").replace("\"dialog\":1", "\"dialog\":2");
    assert_eq!(skips.read("task5/train.jsonl"), later);
    let counted = "task5/train: 4 replies, 2 dialogs; 1 bad dialogs left out (first: line 2)";
    assert!(log.contains(&counted.into()), "{log:?}");
    let bad = Kitchen::new("tiny", LOCAL, &[("a", DIALOGS), others[0], ("all", "1 pim R_food\n")], rest);
    assert_eq!(bad.refused(Some(&bad.from())), "R/from/all: line 1: not `1 name relation<TAB>value`");
    let none = of(DIALOGS, "[[preparation]]\nkind = 'dialogs'\ntasks = []");
    let error = none.short(&Recipe::load(&none.recipe()).unwrap_err().to_string());
    assert_eq!(error, "R/recipes/tiny/recipe.toml: preparation[0].tasks: the list is empty: name a task");
}

#[test]
fn a_context_of_known_turns_is_told() {
    let rest = "[[preparation]]\nkind = 'replies'\ntrain = 'a'\nvalidation = 'b'\ntest = 'b'";
    let train = "{\"context\": [\"We sing of six old ships.\", \"Why?\"], \"responses\": [\"Because of them, the moon is up!\", \"No.\"]}\n";
    let row = |turn: &str| format!("{{\"context\":[\"{turn}\",\"no\"],\"responses\":[\"x\"]}}\n");
    let known = ["we sing of SIX old ships", "because of them -- the moon is up"];
    let other = ["We sing of six new ships.", "Why?"];
    let validation: String = known.iter().chain(&other).map(|turn| row(turn)).collect();
    let kitchen = Kitchen::new("tiny", LOCAL, &[("a", train), ("b", &validation)], rest);
    let (prepared, log) = kitchen.prepare(Some(&kitchen.from()), "");
    prepared.unwrap();
    let seen = |turn: &&str, seen: &str| {
        format!("{{\"context\":[\"{turn}\",\"no\"],\"responses\":[\"x\"],\"last\":\"no\",\"seen\":\"{seen}\"}}\n")
    };
    let expected: String =
        known.iter().map(|turn| seen(turn, "yes")).chain(other.iter().map(|turn| seen(turn, "no"))).collect();
    assert_eq!((kitchen.read("validation.jsonl"), kitchen.read("test.jsonl")), (expected.clone(), expected));
    assert!(kitchen.read("train.jsonl").ends_with("\"last\":\"Why?\",\"seen\":\"no\"}\n"));
    assert_eq!(
        kitchen.read("replies.train.jsonl"),
        "{\"response\":\"Because of them, the moon is up!\",\"last\":\"Why?\"}\n{\"response\":\"No.\",\"last\":\"Why?\"}\n"
    );
    for line in ["train: 1 contexts, 2 replies", "validation: 4 contexts, 4 replies, 2 with a turn of train"] {
        assert!(log.contains(&line.into()), "{log:?}");
    }
    for (text, fault) in [
        ("{\"context\": []}\n", "line 1: not such a row: missing field `responses` at line 1 column 15"),
        ("{\"context\": [], \"responses\": [\"a\"]}\n", "line 1: `context` is an empty list, or has an empty text"),
        (
            "{\"context\": [\"a\"], \"responses\": [\" \"]}\n",
            "line 1: `responses` is an empty list, or has an empty text",
        ),
        ("", "has no row"),
    ] {
        let bad = Kitchen::new("tiny", LOCAL, &[("a", train), ("b", text)], rest);
        assert_eq!(bad.refused(Some(&bad.from())), format!("R/from/b: {fault}"));
    }
}

/// A manifest of these rows.
fn manifest(rows: &str) -> String {
    format!("path\ttext\tspeaker\n{rows}")
}

#[test]
fn numbered_recordings_are_split_by_their_index() {
    let files = [("f/r/1_ann_0.wav", "A"), ("f/r/0_bob_1.wav", "B"), ("f/r/1_bob_12.wav", "C")];
    let rest = "[[preparation]]\nkind = 'numbered_recordings'\nfolder = 'f/r'\nlabels = ['zero', 'one']\ntest = 1\nvalidation = 1";
    let kitchen = Kitchen::new("tiny", LOCAL, &files, rest);
    kitchen.local().unwrap();
    assert_eq!(kitchen.read("test.tsv"), manifest("recordings/1_ann_0.wav\tone\tann\n"));
    assert_eq!(kitchen.read("validation.tsv"), manifest("recordings/0_bob_1.wav\tzero\tbob\n"));
    assert_eq!(kitchen.read("train.tsv"), manifest("recordings/1_bob_12.wav\tone\tbob\n"));
    assert_eq!(kitchen.read("recordings/1_bob_12.wav"), "C");
    for (name, fault) in
        [("2_ann_0.wav", "label 2, but the recipe has 2 labels"), ("ann.wav", "not named LABEL_SPEAKER_INDEX")]
    {
        let path = format!("f/r/{name}");
        let bad = Kitchen::new("tiny", LOCAL, &[(path.as_str(), "A")], rest);
        assert_eq!(bad.refused(Some(&bad.from())), format!("R/from/f/r/{name}: {fault}"));
    }
}

#[test]
fn each_speaker_is_left_out_once_and_chosen_on_once() {
    let names = ["0_ann_0.wav", "1_bob_7.wav", "0_cid_3.wav", "1_ann_9.wav"];
    let files = names.map(|name| (format!("r/{name}"), name));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    let rest = "[[preparation]]\nkind = 'numbered_recordings'\nfolder = 'r'\nlabels = ['zero', 'one']\ntest = 1\nvalidation = 1";
    let kitchen = Kitchen::new("tiny", LOCAL, &files, rest);
    kitchen.local().unwrap();
    let [ann, bob, cid] = [
        "../../recordings/0_ann_0.wav\tzero\tann\n../../recordings/1_ann_9.wav\tone\tann\n",
        "../../recordings/1_bob_7.wav\tone\tbob\n",
        "../../recordings/0_cid_3.wav\tzero\tcid\n",
    ];
    for (left_out, [train, validation, test]) in
        [("ann", [cid, bob, ann]), ("bob", [ann, cid, bob]), ("cid", [bob, ann, cid])]
    {
        for (split, rows) in [("train", train), ("validation", validation), ("test", test)] {
            assert_eq!(kitchen.read(&format!("without/{left_out}/{split}.tsv")), manifest(rows), "{left_out} {split}");
        }
    }
}

#[test]
fn listed_recordings_are_split_by_speaker() {
    let ids = "a/ann/x1\na/ann/x2\na/bob/x1\na/cat/x1\n";
    let said = "ONE TWO (x1)\nTWO (x2)\nTHREE (x1)\nFOUR (x1)\n";
    let recordings = ["a/ann/x1", "a/ann/x2", "a/bob/x1", "a/cat/x1", "b/dan/y1"].map(|id| (format!("f/{id}.mfc"), id));
    let mut files: Vec<(&str, &str)> = recordings.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    files.extend([("ids", ids), ("said", said), ("more", "b/dan/y1\n"), ("said more", "SIX (y1)\n")]);
    let rest = "[[preparation]]\nkind = 'listed_recordings'\nfolder = 'f'\nending = '.mfc'\nvalidation = 2\n\
        train = { recordings = 'ids', transcripts = 'said' }\ntest = { recordings = 'more', transcripts = 'said more' }";
    let kitchen = Kitchen::new("tiny", LOCAL, &files, rest);
    kitchen.local().unwrap();
    assert_eq!(
        kitchen.read("train.tsv"),
        manifest("recordings/a/ann/x1.mfc\tONE TWO\tann\nrecordings/a/ann/x2.mfc\tTWO\tann\n")
    );
    assert_eq!(
        kitchen.read("validation.tsv"),
        manifest("recordings/a/bob/x1.mfc\tTHREE\tbob\nrecordings/a/cat/x1.mfc\tFOUR\tcat\n")
    );
    assert_eq!(kitchen.read("test.tsv"), manifest("recordings/b/dan/y1.mfc\tSIX\tdan\n"));
    assert_eq!(kitchen.read("recordings/a/cat/x1.mfc"), "a/cat/x1");

    let refused = |place: usize, text: &str, rest: &str| {
        let mut files = files.clone();
        files[place].1 = text;
        let bad = Kitchen::new("tiny", LOCAL, &files, rest);
        bad.refused(Some(&bad.from()))
    };
    let (ids, said) = (5, 6);
    assert_eq!(refused(said, "ONE (x1)\n", rest), "R/from/said: 1 lines, but `ids` has 4");
    assert_eq!(
        refused(said, "ONE (x9)\nTWO (x2)\nTHREE (x1)\nFOUR (x1)\n", rest),
        "R/from/said: line 1: not `WORDS (x1)`"
    );
    assert_eq!(
        refused(ids, "a/ann/x1\na/ann/x9\na/bob/x1\na/cat/x1\n", rest),
        "R/from/ids: line 2: names `f/a/ann/x9.mfc`, which is not among the recipe's files"
    );
    let all = rest.replace("validation = 2", "validation = 4");
    assert_eq!(refused(0, "a/ann/x1", &all), "R/from/ids: too few speakers to hold out 4 recordings");
}

#[test]
fn more_files_are_listed_beside_the_recipe() {
    let kitchen = Kitchen::new("tiny", LOCAL, &[], &PAIRS.replace("p/pairs.txt", "p/q r.txt"));
    write(&kitchen.from().join("p/q r.txt"), "a\tA\nb\tB\nc\tC\n");
    let recipe = std::fs::read_to_string(kitchen.recipe()).unwrap();
    write(&kitchen.recipe(), &recipe.replacen("title", "more_files = 'SHA256SUMS'\ntitle", 1));
    let list = kitchen.recipe().with_file_name("SHA256SUMS");
    let load = || Recipe::load(&kitchen.recipe()).map_err(|e| kitchen.short(&e.to_string()));
    assert!(load().unwrap_err().starts_with("R/recipes/tiny/SHA256SUMS: cannot read: "));
    write(&list, "what is this\n");
    assert_eq!(
        load().unwrap_err(),
        "R/recipes/tiny/SHA256SUMS: line 1: not a digest, two spaces and a name, as `sha256sum` writes them"
    );
    write(&list, &format!("{}  p/q r.txt\n", sha256(b"a\tA\nb\tB\nc\tC\n")));
    kitchen.local().unwrap();
    // The list is part of the recipe: with another, what is there is outdated.
    write(&list, &format!("{}  p/q r.txt\n", sha256(b"x")));
    assert!(kitchen.refused(Some(&kitchen.from())).contains("not the file that the recipe means"));
}
