"""Reading the record back from TensorBoard's event files; needs the extra gradwatch[tensorboard], never torch."""
