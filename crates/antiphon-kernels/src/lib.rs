//! Whole-sequence recurrent operations and other fused operations with handwritten gradients.
