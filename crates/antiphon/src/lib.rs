//! Recurrent encoder-decoder language models: the experiment and the command line.
