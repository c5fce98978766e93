//! Models that copy: one of `V` words and `N` slots is searched as one of `V + N` words.

use std::sync::Arc;

use antiphon_core::{Copies, Request, Result, StepModel, StepSession, TokenId};
use antiphon_decode::{
    Combination, Ensemble, Hypothesis, LengthPenalty, Member, Mixture, NoPenalty, SampleConfig, SearchConfig, score,
};

use super::toy::Toy;
use super::{at_most, batch, beam, greedy, limits, sources};

const WORDS: usize = 12;
const SLOTS: usize = 3;

/// A toy whose last tokens are slots.
struct Copying(Arc<Toy>);

impl StepModel for Copying {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        assert!(requests.iter().all(|request| request.copies.is_some()), "it is told what may be copied");
        Arc::clone(&self.0).begin(requests)
    }

    fn vocabulary(&self) -> usize {
        WORDS
    }

    fn copies(&self) -> bool {
        true
    }
}

fn toy(seed: u64) -> Arc<Toy> {
    Toy::random(seed, WORDS + SLOTS, seed % 2 == 1, false)
}

/// The same requests, each with all slots.
fn told() -> Vec<Request> {
    let copies = Copies { says: vec![], slots: (0..SLOTS).map(|slot| format!("{slot}")).collect() };
    let copies = Some(Arc::new(copies));
    batch(&sources()).into_iter().map(|request| Request { copies: copies.clone(), ..request }).collect()
}

fn searches() -> Vec<SearchConfig> {
    let (none, mut all) = (LengthPenalty::None(NoPenalty {}), Vec::new());
    for limits in limits() {
        all.extend([greedy(&limits), beam(3, 2, 1.0, &none, &limits)]);
        let sample = SampleConfig { draws: 4, max_length: at_most(limits.max_length), ..SampleConfig::default() };
        all.push(SearchConfig::Sample(sample.clone()));
        let penalised = SampleConfig { repetition_penalty: 1.3, presence_penalty: 0.2, no_repeat_ngram: 2, ..sample };
        all.push(SearchConfig::Sample(penalised));
    }
    all
}

fn found(search: &SearchConfig, model: Arc<dyn StepModel>, requests: &[Request]) -> Vec<Vec<Hypothesis>> {
    search.build().unwrap().run(model, requests).unwrap()
}

#[test]
fn slots_are_searched_as_words_are() {
    let mut said = 0;
    for seed in 0..40 {
        for search in searches() {
            let copied = found(&search, Arc::new(Copying(toy(seed))), &told());
            assert_eq!(copied, found(&search, toy(seed), &batch(&sources())), "{seed} {search:?}");
            let ids = copied.iter().flatten().flat_map(|answer| &answer.tokens);
            said += ids.filter(|&&id| id as usize >= WORDS).count();
        }
    }
    assert!(said > 100, "only {said} slots were said");
}

#[test]
fn prefixes_candidates_and_targets_may_hold_slots_of_their_request() {
    let [limits, ..] = limits();
    let slot = WORDS as TokenId + 1;
    let mut requests = told();
    requests[0].prefix = vec![5, slot];
    requests[1].candidates = vec![vec![slot, 4], vec![6]];
    requests[2].limits.max_length = Some(3);
    let plain: Vec<Request> = requests.iter().map(|request| Request { copies: None, ..request.clone() }).collect();
    for search in [greedy(&limits), beam(2, 2, 1.0, &LengthPenalty::None(NoPenalty {}), &limits)] {
        let copied = found(&search, Arc::new(Copying(toy(3))), &requests);
        assert_eq!(copied, found(&search, toy(3), &plain));
        assert_eq!(copied[0][0].tokens[..2], [5, slot]);
        // A word that this request does not have.
        let mut odd = requests.clone();
        odd[0].prefix = vec![(WORDS + SLOTS) as TokenId];
        let error = search.build().unwrap().run(Arc::new(Copying(toy(3))), &odd).unwrap_err();
        assert!(error.to_string().contains("token 15"), "{error}");
    }
    let targets = [vec![slot, 4, 3], vec![3], vec![5, slot, slot]];
    let scored = score(Arc::new(Copying(toy(3))), &told(), &targets).unwrap();
    assert_eq!(scored, score(toy(3), &batch(&sources()), &targets).unwrap());
    assert!(score(Arc::new(Copying(toy(3))), &told(), &[vec![15], vec![3], vec![3]]).is_err());
}

fn together(models: Vec<Arc<dyn StepModel>>, by: Combination, reading: usize) -> Result<Ensemble> {
    let mixture = Mixture::new(by, &vec![1.0; models.len()]).unwrap();
    let member = |(i, model)| Member { name: format!("model {i}"), model, reading: i * reading };
    Ensemble::new(models.into_iter().enumerate().map(member).collect(), mixture)
}

#[test]
fn models_that_copy_answer_together() {
    for by in [Combination::Linear, Combination::LogLinear] {
        for seed in 0..20 {
            let copying: Vec<Arc<dyn StepModel>> =
                (0..2).map(|i| Arc::new(Copying(toy(2 * seed + 50 * i))) as Arc<dyn StepModel>).collect();
            let plain: Vec<Arc<dyn StepModel>> = (0..2).map(|i| toy(2 * seed + 50 * i) as Arc<dyn StepModel>).collect();
            let copying = Arc::new(together(copying, by, 0).unwrap());
            let plain = Arc::new(together(plain, by, 0).unwrap());
            assert!(copying.copies() && !plain.copies());
            for search in searches() {
                let copied = found(&search, copying.clone(), &told());
                assert_eq!(copied, found(&search, plain.clone(), &batch(&sources())), "{seed} {search:?}");
            }
        }
    }
    let models = || -> Vec<Arc<dyn StepModel>> { vec![Arc::new(Copying(toy(1))), Arc::new(Copying(toy(2)))] };
    let told = |error: Result<Ensemble>| error.err().expect("an error").to_string();
    assert!(told(together(models(), Combination::Linear, 1)).contains("tokenizers that differ"));
    let mixed: Vec<Arc<dyn StepModel>> = vec![Arc::new(Copying(toy(1))), Toy::random(1, WORDS, false, false)];
    assert!(told(together(mixed, Combination::Linear, 0)).contains("`model 0` copies"));
}
