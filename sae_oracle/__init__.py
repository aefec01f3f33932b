"""The command `sae-oracle`.

It stands outside `keras_impl` because importing that package starts a Keras backend, and the
command starts one process for each.
"""
