"""One file for each library, all with the same names. Each runs in its own worker and imports only its library.

prepare(folder)                what to load: the Hugging Face folder itself, or what is made of it; runs elsewhere
version()                      of the library
Model(path, threads, **arguments)
    .generate(ids, count, tick=None, **settings)
                               the `count` tokens after each row of `ids`, greedy; tick() after each step
"""
