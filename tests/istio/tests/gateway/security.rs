//! Who may choose a subset, and who may call.
