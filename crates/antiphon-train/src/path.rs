//! Where a parameter lies in its module: `encoder.layers.0.forward.bias`.

/// Enums whose variants are segments of paths, as in `decoder.attention.General.keys`: those that the files of version 0.1 have.
/// Of all others only what their variants hold is named, so that a part can become one of several without its parameters
/// changing their names.
const NAMED: [&str; 2] = ["Enum:Attention", "Enum:Bridge"];

/// The path of a walk through a module, as Burn tells of it.
#[derive(Debug, Default)]
pub(crate) struct ModulePath {
    /// Each segment entered, and whether it is named.
    segments: Vec<(String, bool)>,
}

impl ModulePath {
    /// Goes into `name`, a field, a place in a list or the variant of an enum, of a container such as `Struct:Decoder`.
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        let is_named = !container.starts_with("Enum:") || NAMED.contains(&container);
        self.segments.push((name.to_owned(), is_named));
    }

    /// Leaves what was entered last.
    pub(crate) fn exit(&mut self) {
        self.segments.pop();
    }

    /// The path so far, with dots.
    pub(crate) fn dotted(&self) -> String {
        let named = self.segments.iter().filter(|(_, is_named)| *is_named).map(|(name, _)| name.as_str());
        named.collect::<Vec<_>>().join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_enums_only_those_of_old_files_are_named() {
        let mut path = ModulePath::default();
        for (name, container) in [
            ("EncoderDecoder", "Enum:Model"),
            ("decoder", "Struct:EncoderDecoder"),
            ("attention", "Struct:Decoder"),
            ("General", "Enum:Attention"),
            ("keys", "Struct:GeneralAttention"),
        ] {
            path.enter(name, container);
        }
        assert_eq!(path.dotted(), "decoder.attention.General.keys");
        path.exit();
        path.exit();
        assert_eq!(path.dotted(), "decoder.attention");
    }
}
