"""What TensorBoard's event files say of a run, without a server; needs the extra gradwatch[tensorboard]."""
