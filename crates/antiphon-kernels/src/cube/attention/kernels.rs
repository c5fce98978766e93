//! The kernels of attention. Eight groups of 32 units make the scores, a step of the memory each, and the scores stay in shared memory; then
//! each unit has some columns of the context.

use cubecl::prelude::*;

use super::super::UNITS;
use super::super::cell::tangent;
use super::super::tile::{ROWS, SUMS};

/// Steps of a memory at most, whose scores lie in shared memory.
pub(crate) const MOST_STEPS: usize = 2048;

/// Units that make a score together.
const LANES: usize = 32;

/// Scores that are made before their parts are added.
const AT_ONCE: usize = 32;

/// Where the parts lie behind the scores, those of a score in a row of `LANES` and one more.
const PARTS: usize = MOST_STEPS;

/// Steps of the memory that a unit takes for the gradients of keys and energy.
pub(super) const CHUNK: usize = 8;

/// Steps of the memory that a unit takes for a sum over the queries.
pub(super) const SUMMED: usize = 4;

/// `[s] = query · rows_s`, or `energy · tanh(query + rows_s)`, of the real steps, at the beginning of `held`. All units must come here.
#[cube]
fn scores(
    query: &[f32],
    query_at: usize,
    rows: &[f32],
    rows_at: usize,
    energy: &[f32],
    energy_at: usize,
    width: usize,
    real: usize,
    held: &mut Shared<[f32]>,
    #[comptime] additive: bool,
) {
    let unit = UNIT_POS as usize;
    let (lane, group) = (unit % LANES, unit / LANES);
    let mut base = 0usize;
    while base < real {
        #[unroll]
        for i in 0..comptime!(AT_ONCE * LANES / UNITS) {
            let place = i * comptime!(UNITS / LANES) + group;
            let s = base + place;
            if s < real {
                let at = rows_at + s * width;
                let mut x = 0.0f32;
                let mut k = lane;
                while k < width {
                    if comptime!(additive) {
                        x = fma(energy[energy_at + k], tangent(query[query_at + k] + rows[at + k]), x);
                    } else {
                        x = fma(query[query_at + k], rows[at + k], x);
                    }
                    k += LANES;
                }
                held[PARTS + place * comptime!(LANES + 1) + lane] = x;
            }
        }
        sync_cube();
        if unit < AT_ONCE && base + unit < real {
            let mut x = 0.0f32;
            #[unroll]
            for lane in 0..LANES {
                x += held[PARTS + unit * comptime!(LANES + 1) + lane];
            }
            held[base + unit] = x;
        }
        sync_cube();
        base += AT_ONCE;
    }
}

/// See [`Look::forward`].
#[cube(launch_unchecked)]
pub(super) fn look_forward(
    query: &[f32],
    keys: &[f32],
    memory: &[f32],
    energy: &[f32],
    table: &[u32],
    weights: &mut [f32],
    contexts: &mut [f32],
    handed: &mut [f32],
    steps: u32,
    first: u32,
    s: u32,
    stride: u32,
    a: u32,
    m: u32,
    parts: u32,
    group: u32,
    depth: u32,
    depth_at: u32,
    #[comptime] additive: bool,
) {
    let mut held = Shared::<[f32]>::new_slice(SUMS);
    forward(
        query,
        keys,
        memory,
        energy,
        table,
        weights,
        contexts,
        handed,
        &mut held,
        steps,
        CUBE_POS_X,
        first + CUBE_POS_Y,
        s,
        stride,
        a,
        m,
        parts,
        group,
        depth,
        depth_at,
        additive,
    );
}

/// Its body for query `t` of row `b`.
#[cube]
fn forward(
    query: &[f32],
    keys: &[f32],
    memory: &[f32],
    energy: &[f32],
    table: &[u32],
    weights: &mut [f32],
    contexts: &mut [f32],
    handed: &mut [f32],
    held: &mut Shared<[f32]>,
    steps: u32,
    b: u32,
    t: u32,
    s: u32,
    stride: u32,
    a: u32,
    m: u32,
    parts: u32,
    group: u32,
    depth: u32,
    depth_at: u32,
    #[comptime] additive: bool,
) {
    weigh(query, keys, energy, table, weights, held, steps, b, t, s, stride, a, parts, additive);
    let (s, m) = (s as usize, m as usize);
    let (b, unit) = (b as usize, UNIT_POS as usize);
    let place = b * steps as usize + t as usize;
    let row = table[b * 3] as usize;
    let real = select(t < table[b * 3 + 2], table[b * 3 + 1], 0u32) as usize;
    let mut k = unit;
    while k < m.div_ceil(4) * 4 {
        let mut x = 0.0f32;
        if k < m {
            let at = row * s * m + k;
            for i in 0..real {
                x = fma(held[i], memory[at + i * m], x);
            }
            contexts[place * m + k] = x;
        }
        if depth > 0u32 {
            let to = (group as usize + b / ROWS) * depth as usize + depth_at as usize + k;
            handed[to * ROWS + b % ROWS] = x;
        }
        k += UNITS;
    }
}

/// The weights of query `t` of row `b`, also at the beginning of `held`; zeros beyond the real steps. All units of a cube must come here.
#[cube]
pub(crate) fn weigh(
    query: &[f32],
    keys: &[f32],
    energy: &[f32],
    table: &[u32],
    weights: &mut [f32],
    held: &mut Shared<[f32]>,
    steps: u32,
    b: u32,
    t: u32,
    s: u32,
    stride: u32,
    a: u32,
    parts: u32,
    #[comptime] additive: bool,
) {
    let (s, stride, a) = (s as usize, stride as usize, a as usize);
    let (b, unit) = (b as usize, UNIT_POS as usize);
    let place = b * steps as usize + t as usize;
    let row = table[b * 3] as usize;
    let real = select(t < table[b * 3 + 2], table[b * 3 + 1], 0u32) as usize;
    let energy_at = b % parts as usize * a;
    scores(query, place * a, keys, row * s * a, energy, energy_at, a, real, held, additive);

    // The largest score, and the sum of exponentials: of every 32nd, then of all.
    if unit < LANES {
        let mut most = f32::new(-1e30f32);
        let mut total = 0.0f32;
        let mut i = unit;
        while i < real {
            most = select(held[i] > most, held[i], most);
            i += LANES;
        }
        i = unit;
        while i < real {
            total += (held[i] - most).exp();
            i += LANES;
        }
        held[PARTS + unit] = most;
        held[PARTS + LANES + unit] = total;
    }
    sync_cube();
    let mut most = f32::new(-1e30f32);
    #[unroll]
    for lane in 0..LANES {
        most = select(held[PARTS + lane] > most, held[PARTS + lane], most);
    }
    let mut total = 0.0f32;
    #[unroll]
    for lane in 0..LANES {
        total += held[PARTS + LANES + lane] * (held[PARTS + lane] - most).exp();
    }
    let mut i = unit;
    while i < stride {
        let mut weight = 0.0f32;
        if i < real {
            weight = (held[i] - most).exp() / total;
            held[i] = weight;
        }
        weights[place * stride + i] = weight;
        i += UNITS;
    }
    sync_cube();
}

/// See [`Look::backward`].
#[cube(launch_unchecked)]
pub(super) fn look_backward(
    gradient: &[f32],
    query: &[f32],
    keys: &[f32],
    memory: &[f32],
    energy: &[f32],
    table: &[u32],
    weights: &[f32],
    dscores: &mut [f32],
    dquery: &mut [f32],
    handed: &mut [f32],
    steps: u32,
    first: u32,
    s: u32,
    stride: u32,
    a: u32,
    m: u32,
    parts: u32,
    group: u32,
    depth: u32,
    depth_at: u32,
    #[comptime] additive: bool,
) {
    let mut held = Shared::<[f32]>::new_slice(SUMS);
    backward(
        gradient,
        query,
        keys,
        memory,
        energy,
        table,
        weights,
        dscores,
        dquery,
        handed,
        &mut held,
        steps,
        CUBE_POS_X,
        first + CUBE_POS_Y,
        s,
        stride,
        a,
        m,
        parts,
        group,
        depth,
        depth_at,
        additive,
    );
}

/// Its body for query `t` of row `b`.
#[cube]
fn backward(
    gradient: &[f32],
    query: &[f32],
    keys: &[f32],
    memory: &[f32],
    energy: &[f32],
    table: &[u32],
    weights: &[f32],
    dscores: &mut [f32],
    dquery: &mut [f32],
    handed: &mut [f32],
    held: &mut Shared<[f32]>,
    steps: u32,
    b: u32,
    t: u32,
    s: u32,
    stride: u32,
    a: u32,
    m: u32,
    parts: u32,
    group: u32,
    depth: u32,
    depth_at: u32,
    #[comptime] additive: bool,
) {
    to_scores(gradient, memory, table, weights, dscores, held, steps, b, t, s, stride, m);
    let (s, a) = (s as usize, a as usize);
    let (b, unit) = (b as usize, UNIT_POS as usize);
    let place = b * steps as usize + t as usize;
    let row = table[b * 3] as usize;
    let real = select(t < table[b * 3 + 2], table[b * 3 + 1], 0u32) as usize;
    let energy_at = b % parts as usize * a;
    let mut k = unit;
    while k < a.div_ceil(4) * 4 {
        let mut x = 0.0f32;
        if k < a {
            let at = row * s * a + k;
            if comptime!(additive) {
                let own = query[place * a + k];
                for i in 0..real {
                    let e = tangent(own + keys[at + i * a]);
                    x = fma(held[i], 1.0f32 - e * e, x);
                }
                x *= energy[energy_at + k];
            } else {
                for i in 0..real {
                    x = fma(held[i], keys[at + i * a], x);
                }
            }
            dquery[place * a + k] = x;
        }
        if depth > 0u32 {
            let to = (group as usize + b / ROWS) * depth as usize + depth_at as usize + k;
            handed[to * ROWS + b % ROWS] = x;
        }
        k += UNITS;
    }
}

/// From the gradient of the context of query `t` of row `b`: that of the scores, also at the beginning of `held`; zeros beyond the real
/// steps. All units of a cube must come here.
#[cube]
pub(crate) fn to_scores(
    gradient: &[f32],
    memory: &[f32],
    table: &[u32],
    weights: &[f32],
    dscores: &mut [f32],
    held: &mut Shared<[f32]>,
    steps: u32,
    b: u32,
    t: u32,
    s: u32,
    stride: u32,
    m: u32,
) {
    let (s, stride, m) = (s as usize, stride as usize, m as usize);
    let (b, unit) = (b as usize, UNIT_POS as usize);
    let place = b * steps as usize + t as usize;
    let row = table[b * 3] as usize;
    let real = select(t < table[b * 3 + 2], table[b * 3 + 1], 0u32) as usize;
    // Of the weights, then of the scores: `w ⊙ (d − w · d)`.
    scores(gradient, place * m, memory, row * s * m, gradient, 0usize, m, real, held, false);
    if unit < LANES {
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < real {
            sum = fma(weights[place * stride + i], held[i], sum);
            i += LANES;
        }
        held[PARTS + unit] = sum;
    }
    sync_cube();
    let mut mean = 0.0f32;
    #[unroll]
    for lane in 0..LANES {
        mean += held[PARTS + lane];
    }
    let mut i = unit;
    while i < stride {
        let mut d = 0.0f32;
        if i < real {
            d = weights[place * stride + i] * (held[i] - mean);
            held[i] = d;
        }
        dscores[place * stride + i] = d;
        i += UNITS;
    }
    sync_cube();
}

/// Of additive scores, the gradients of the keys, and of the energy `[chunk · B/N + b/N, (b mod N) · A]`: a cube has some columns of a chunk
/// of a row's steps.
#[cube(launch_unchecked)]
pub(super) fn keys_backward(
    query: &[f32],
    keys: &[f32],
    energy: &[f32],
    table: &[u32],
    dscores: &[f32],
    dkeys: &mut [f32],
    denergy: &mut [f32],
    steps: u32,
    s: u32,
    stride: u32,
    a: u32,
    parts: u32,
) {
    let (steps, s, a, parts) = (steps as usize, s as usize, a as usize, parts as usize);
    let stride = stride as usize;
    let (b, chunk) = (CUBE_POS_Z as usize, CUBE_POS_Y as usize);
    let k = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    if k < a {
        let (real, live) = (table[b * 3 + 1] as usize, table[b * 3 + 2] as usize);
        let own = energy[b % parts * a + k];
        let mut sum = 0.0f32;
        for i in 0..CHUNK {
            let step = chunk * CHUNK + i;
            if step < s {
                let mut x = 0.0f32;
                if step < real {
                    let key = keys[(b * s + step) * a + k];
                    for t in 0..live {
                        let d = dscores[(b * steps + t) * stride + step];
                        let e = tangent(query[(b * steps + t) * a + k] + key);
                        x = fma(d, 1.0f32 - e * e, x);
                        sum = fma(d, e, sum);
                    }
                }
                dkeys[(b * s + step) * a + k] = own * x;
            }
        }
        let rows = CUBE_COUNT_Z as usize / parts;
        denergy[((chunk * rows + b / parts) * parts + b % parts) * a + k] = sum;
    }
}

/// See [`Look::over_queries`].
#[cube(launch_unchecked)]
pub(super) fn sum_over_queries(
    weights: &[f32],
    values: &[f32],
    table: &[u32],
    sums: &mut [f32],
    steps: u32,
    s: u32,
    stride: u32,
    width: u32,
) {
    let (steps, s, stride, width) = (steps as usize, s as usize, stride as usize, width as usize);
    let (b, first) = (CUBE_POS_Z as usize, CUBE_POS_Y as usize * SUMMED);
    let k = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    if k < width {
        let (real, live) = (table[b * 3 + 1] as usize, table[b * 3 + 2] as usize);
        let mut own = Array::<f32>::new(SUMMED);
        #[unroll]
        for i in 0..SUMMED {
            own[i] = 0.0f32;
        }
        if first < real {
            for t in 0..live {
                let value = values[(b * steps + t) * width + k];
                #[unroll]
                for i in 0..SUMMED {
                    if first + i < real {
                        own[i] = fma(weights[(b * steps + t) * stride + first + i], value, own[i]);
                    }
                }
            }
        }
        #[unroll]
        for i in 0..SUMMED {
            if first + i < s {
                sums[(b * s + first + i) * width + k] = own[i];
            }
        }
    }
}
