//! Recipes, called from the command line.

use crate::place::{Place, shown};

#[test]
fn a_recipe_is_found_upward_and_its_data_can_be_trained_on() {
    let place = Place::new();
    let sha256 = antiphon_lab::sha256_file(place.path("data/train.tsv")).unwrap();
    let recipe = format!(
        "title = \"words\"\n[licence]\nname = \"free\"\nsource = \"here\"\n[origin]\nkind = \"local\"\nsource = \"there\"\n\
         [[files]]\nname = \"train.tsv\"\nsha256 = \"{sha256}\"\n\
         [preparation]\nkind = \"pairs_by_lines\"\nfile = \"train.tsv\"\ntrain = 300\nvalidation = 20\n"
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
