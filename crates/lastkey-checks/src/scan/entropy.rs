//! How random a text looks.
//!
//! Room      `checks`, inside `scan`.

/// Shannon entropy of the bytes, in bits a byte: 0 for a run of one letter.
#[expect(clippy::cast_precision_loss, reason = "a secret is far shorter than 2^52 bytes")]
pub(super) fn shannon(text: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let len = text.len() as f64;
    let part = |count: &u32| {
        let share = f64::from(*count) / len;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(part).sum()
}

/// Pairs of letters that make up most of English text and of names in programs.
const COMMON_PAIRS: &[u8] =
    b"th he in er an re nd at on nt ha es st en ed to it ou ea hi is or ti \
as te et ng of al de se le sa si ar ve ra ld ur me co ro ri li io ic la el ch ma ec om ce us ss tr \
di ne ns ll ge pr ol ac ta ct ot ut il ca ow be fo fi pe em no ad un ly im lo ag mo sp ty ie ir wo \
na po pa su id do mp ap ts ke ey tu mi vi rs so ba ex am ni up pl os ab sh ul rt ck op ki ee iv wi \
da da ui ay by bl cl cr dr fr gr us ef ed rl sc oo ds ls tp ht yp ze iz sy ym";

/// Share of the neighbouring letters that are a common pair, of 1; `None` without letters.
pub(super) fn wordiness(text: &[u8]) -> Option<f64> {
    wordiness_of_runs(text, 2)
}

/// The same, of those runs of letters alone that are at least so long.
///
/// A capital behind a small letter begins another word: such a pair is never a common one.
#[expect(clippy::cast_precision_loss, reason = "a secret is far shorter than 2^52 bytes")]
pub(super) fn wordiness_of_runs(text: &[u8], shortest: usize) -> Option<f64> {
    let mut pairs = 0_usize;
    let mut common = 0_usize;
    let runs = text.split(|byte| !byte.is_ascii_alphabetic());
    for pair in runs.filter(|run| run.len() >= shortest).flat_map(|run| run.windows(2)) {
        pairs += 1;
        let is_boundary =
            matches!(pair, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase());
        let pair = pair.to_ascii_lowercase();
        let is_common = || COMMON_PAIRS.chunks(3).any(|known| known.starts_with(&pair));
        common += usize::from(!is_boundary && is_common());
    }
    (pairs > 0).then(|| common as f64 / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::{shannon, wordiness, wordiness_of_runs};

    #[test]
    fn shannon_counts_bits() {
        assert!(shannon(b"aaaa") < 0.01);
        assert!((shannon(b"abcd") - 2.0).abs() < 1e-9);
        assert!(shannon(b"") == 0.0);
    }

    #[test]
    fn wordiness_tells_names_from_noise() {
        for name in ["my_database_connection_name", "listSecretsForTenant", "org.example.server"] {
            assert!(wordiness(name.as_bytes()).unwrap() > 0.55, "{name}");
        }
        for noise in ["xqZpWvKjRtGbNmHd", "q7Xv2PzKw9LfBt4M", "ZkQpVnXrTjWgYbHc"] {
            assert!(wordiness(noise.as_bytes()).unwrap_or(0.0) < 0.4, "{noise}");
        }
        assert_eq!(wordiness(b"0123-4567"), None);
        assert_eq!(wordiness_of_runs(b"pad9w7the37van8", 4), None);
        assert!(wordiness_of_runs(b"pad9there37", 4).unwrap() > 0.9);
    }
}
