//! Cells, encoders, attention, bridges, decoders and the models made of them.
