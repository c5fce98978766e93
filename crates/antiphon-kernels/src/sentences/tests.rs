use antiphon_core::TokenBatch;
use antiphon_core::random::Key;
use burn::tensor::{DType, Device};

use super::*;

const END: TokenId = Special::End.id();

/// A batch whose rows are sentences of so many words each; the last `End` of a row is left out if `open`.
fn text(rows: &[&[usize]], open: bool) -> TokenBatch {
    let row = |sentences: &&[usize]| {
        let closed = sentences.iter().flat_map(|&words| std::iter::repeat_n(7, words).chain([END]));
        let mut row: Vec<TokenId> = closed.collect();
        if open {
            row.pop();
        }
        row
    };
    TokenBatch::from_rows(&rows.iter().map(row).collect::<Vec<_>>())
}

fn sentences_of(text: &TokenBatch, most: Option<usize>) -> Sentences {
    Sentences::of(&text.ids, &text.lengths, text.width, most)
}

#[test]
fn an_end_closes_a_sentence_and_belongs_to_none() {
    let rows: &[&[usize]] = &[&[3, 1, 2], &[], &[0], &[0, 0, 4]];
    for open in [false, true] {
        let text = text(rows, open);
        let sentences = sentences_of(&text, None);
        for (b, words) in rows.iter().enumerate() {
            // Nothing behind the last `End` is no sentence.
            let count = if open && words.last() == Some(&0) { words.len() - 1 } else { words.len() };
            let found: Vec<usize> = sentences.row(b).iter().map(|sentence| sentence.words as usize).collect();
            assert_eq!(found, words[..count], "row {b}");
            assert_eq!((sentences.lengths()[b] as usize, sentences.left_out(b)), (count, 0));
            for sentence in sentences.row(b) {
                let ids = &text.row(b)[sentence.start as usize..][..sentence.words as usize];
                assert!(ids.iter().all(|&id| id != END));
            }
        }
        assert_eq!(sentences.most(), 3);
    }
}

#[test]
fn the_last_sentences_of_a_row_are_kept() {
    let text = text(&[&[3, 1, 2, 5], &[2], &[]], false);
    let all = sentences_of(&text, None);
    for most in 0..6 {
        let kept = sentences_of(&text, Some(most));
        for b in 0..3 {
            assert_eq!(kept.left_out(b), all.row(b).len().saturating_sub(most));
            assert_eq!(kept.row(b), &all.row(b)[kept.left_out(b)..]);
        }
        assert_eq!(kept.most(), most.clamp(1, 4));
    }
}

fn normal(name: &str, n: usize) -> Vec<f32> {
    let key = Key::from_seed(3).named(name);
    (0..n as u64).map(|i| key.normal(i) as f32).collect()
}

/// Texts: of one word; ragged, with empty sentences and rows; of enough sentences for several threads. Then numbers of a word.
fn cases() -> Vec<(TokenBatch, usize)> {
    let many: Vec<Vec<usize>> = (0..37).map(|b| (0..b % 7).map(|i| (b * 3 + i * 5) % 9).collect()).collect();
    let many: Vec<&[usize]> = many.iter().map(Vec::as_slice).collect();
    vec![
        (text(&[&[1]], false), 1),
        (text(&[&[]], false), 3),
        (text(&[&[0], &[]], false), 3),
        (text(&[&[3, 0, 2], &[], &[1, 1, 1, 6], &[0]], false), 5),
        (text(&[&[3, 0, 2], &[], &[1, 1, 1, 6], &[0]], true), 20),
        (text(&many, false), 50),
    ]
}

fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).try_to_vec().unwrap()
}

#[test]
fn both_bodies_are_the_equation_and_its_gradient_whatever_stands_between_sentences() {
    for (text, e) in cases() {
        let (b, s) = (text.rows(), text.width);
        for (order, most) in [(WordOrder::Ignored, None), (WordOrder::Encoded, None), (WordOrder::Encoded, Some(2))] {
            let sentences = sentences_of(&text, most);
            let n = sentences.most();
            let mut given = vec![f32::NAN; b * s * e];
            let numbers = normal("x", b * s * e);
            // What every word counts for in every sum.
            let weight = |k: usize, words: usize, d: usize| match order {
                WordOrder::Ignored => 1.0,
                WordOrder::Encoded => {
                    let (k, j, d, e) = ((k + 1) as f64, words as f64, (d + 1) as f64, e as f64);
                    (1.0 - k / j) - d / e * (1.0 - 2.0 * k / j)
                }
            };
            let of_sums = normal("given", b * n * e);
            let (mut sums, mut gradient) = (vec![0.0; b * n * e], vec![0.0; b * s * e]);
            for row in 0..b {
                for (i, sentence) in sentences.row(row).iter().enumerate() {
                    for (k, d) in (0..sentence.words as usize).flat_map(|k| (0..e).map(move |d| (k, d))) {
                        let (from, to) = (((row * s) + sentence.start as usize + k) * e + d, (row * n + i) * e + d);
                        given[from] = numbers[from];
                        sums[to] += weight(k, sentence.words as usize, d) * f64::from(numbers[from]);
                        gradient[from] += weight(k, sentence.words as usize, d) * f64::from(of_sums[to]);
                    }
                }
            }
            for dtype in [DType::F32, DType::F64] {
                let device = Device::flex().autodiff();
                let x = TensorData::new(given.clone(), [b, s, e]);
                let x = Tensor::<3>::from_data(x, (&device, dtype)).require_grad();
                let y = sentence_sums(x.clone(), &sentences, order);
                assert_eq!(y.dims(), [b, n, e]);
                let of_sums = TensorData::new(of_sums.clone(), [b, n, e]);
                let of_sums = Tensor::<3>::from_data(of_sums, (&device.inner(), dtype));
                let grads = (y.clone() * Tensor::from_inner(of_sums)).sum().backward();
                let found = [doubles(y.inner()), doubles(x.grad(&grads).unwrap())];
                for (found, exact) in found.iter().zip([&sums, &gradient]) {
                    assert_eq!(found.len(), exact.len());
                    for (x, y) in found.iter().zip(exact) {
                        assert!((x - y).abs() < 1e-5, "{order:?} {most:?} {b} {s} {e} {dtype:?}: {x} is not {y}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_padded_beside_others_on_any_number_of_threads() {
    let e = 33;
    let own: &[usize] = &[5, 0, 3, 7];
    let row = normal("row", 19 * e);
    let run = |rows: usize, place: usize, longer: usize| {
        let others: Vec<Vec<usize>> = (0..rows).map(|b| vec![b % 5 + longer; (b + longer) % 6]).collect();
        let all: Vec<&[usize]> = others.iter().enumerate().map(|(b, o)| if b == place { own } else { o }).collect();
        let text = text(&all, false);
        let mut x = normal("others", rows * text.width * e);
        x[place * text.width * e..][..row.len()].copy_from_slice(&row);
        let x = Tensor::<3>::from_data(TensorData::new(x, [rows, text.width, e]), &Device::flex());
        let y = sentence_sums(x, &sentences_of(&text, None), WordOrder::Encoded);
        let y: Vec<f32> = y.narrow(0, place, 1).narrow(1, 0, own.len()).into_data().try_to_vec().unwrap();
        y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let alone = run(1, 0, 0);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (rows, place, longer) in [(2, 1, 0), (9, 4, 5), (60, 59, 17)] {
            assert_eq!(pool.install(|| run(rows, place, longer)), alone, "row {place} of {rows}, {threads} threads");
        }
    }
}
