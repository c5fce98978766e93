//! The device `wgpu`: as far as a build without it goes, and beside the CPU.

#[cfg(not(feature = "wgpu"))]
use crate::place::Called;
use crate::place::Place;

#[cfg(not(feature = "wgpu"))]
#[test]
fn a_build_without_it_names_the_remedy() {
    let place = Place::new();
    for words in ["run tiny.toml --device wgpu", "run tiny.toml --set device=wgpu"] {
        let answer = place.call(words).refuses();
        assert!(answer.starts_with("error: device: `wgpu` is not in this build"), "{answer}");
        let gpu = if cfg!(target_os = "macos") { "wgpu" } else { "vulkan" };
        let features = if cfg!(feature = "dashboard") { format!("dashboard,{gpu}") } else { gpu.to_owned() };
        let remedy = format!("--package antiphon --features {features} -- {words}`");
        assert!(answer.contains("`cargo run ") && answer.ends_with(&remedy), "{answer}");
        let mut command = place.command(words);
        let answer = Called(command.env("ANTIPHON_CALLED_AS", "cargo xtask").output().unwrap()).refuses();
        assert!(answer.ends_with(&format!("`cargo xtask --features {features} {words}`")), "{answer}");
    }
    assert!(!place.path("runs").exists());
    let (place, run, _) = crate::place::finished();
    let answer = place.call(&format!("predict {run} --device wgpu")).refuses();
    assert!(answer.starts_with("error: --device: `wgpu` is not in this build"), "{answer}");
}

#[cfg(feature = "wgpu")]
mod beside_the_cpu {
    use serde_json::Value;

    use super::Place;

    /// What a loss may differ by, as a share of it: single precision, and what five steps of Adam make of it. Mesa's software
    /// driver stays below 2e-7; the functions of a real GPU are rougher.
    const TOLERANCE: f64 = 1e-4;

    /// `RUN/metrics.jsonl`: the losses of the steps, then the figures of the validations.
    fn figures(place: &Place, run: &str) -> (Vec<f64>, Vec<f64>) {
        let text = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let losses = records.iter().filter_map(|record| record["loss"].as_f64());
        let values = records.iter().filter_map(|record| record["values"]["loss"].as_f64());
        (losses.collect(), values.collect())
    }

    #[track_caller]
    fn agree(ours: &[f64], theirs: &[f64]) {
        assert!(ours.len() == theirs.len() && !ours.is_empty(), "{ours:?}\n{theirs:?}");
        let differs = |(a, b): (&f64, &f64)| (a - b).abs() > TOLERANCE * a.abs();
        assert!(!ours.iter().zip(theirs).any(differs), "{ours:?} on the CPU\n{theirs:?} on the GPU");
    }

    /// An attentive model with all that a step can contain: it trains, validates, goes on from a checkpoint,
    /// searches, and is used on the other device.
    #[test]
    #[ignore = "slow"]
    fn a_model_trains_searches_and_moves() {
        let place = Place::new();
        place.write(
            "small.toml",
            "extends = \"tiny.toml\"\n[model.encoder]\nkind = \"lstm\"\nbidirectional = true\n\
             [model.decoder]\nkind = \"lstm\"\ninput_feeding = true\n[model.decoder.attention]\nkind = \"additive\"\n\
             [train]\nsteps = 5\nclip_norm = 1.0\nloss = { label_smoothing = 0.1 }\n\
             validate = { every_steps = 3 }\ncheckpoint = { every_steps = 3, keep = 2 }\n",
        );
        let begun = place.call("train small.toml --device wgpu --run gpu");
        if begun.0.status.code() == Some(2) {
            // Drivers that are there in part may say things of their own.
            let said = begun.err();
            assert!(said.contains("error: device: no GPU can be used: install its driver"), "{said}");
            return eprintln!("not tested: there is no GPU, and no driver that plays one\n{said}");
        }
        begun.succeeds();
        place.call("train small.toml --run cpu").succeeds();
        let (cpu, gpu) = (figures(&place, "cpu"), figures(&place, "gpu"));
        agree(&cpu.0, &gpu.0);
        agree(&cpu.1, &gpu.1);

        // A run that lost its last steps goes on from the checkpoint before them.
        std::fs::remove_file(place.path("gpu/model.safetensors")).unwrap();
        std::fs::remove_file(place.path("gpu/checkpoints/step-0000000005.safetensors")).unwrap();
        let resumed = place.call("train small.toml --device wgpu --run gpu");
        assert!(resumed.err().contains("resume   after step 3"), "{}", resumed.err());
        resumed.succeeds();
        agree(&gpu.0, &figures(&place, "gpu").0);

        // Each answers on the other's device as at home.
        let (sources, mut answers) = ("abcd\nda\ncb\n", Vec::new());
        for (run, device) in [("cpu", "flex"), ("cpu", "wgpu"), ("gpu", "wgpu"), ("gpu", "flex")] {
            let words = format!("predict {run} --device {device} --json");
            let out = place.call_with(&words, sources).succeeds();
            let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            answers.push(lines.map(|line| line["answers"][0]["log_prob"].as_f64().unwrap()).collect::<Vec<_>>());
        }
        for other in &answers[1..] {
            agree(&answers[0], other);
        }
    }
}
