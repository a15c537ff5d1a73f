//! Who may do what: keys, tokens, signed modules, provider archives, trusted time.
