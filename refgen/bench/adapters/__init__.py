"""One file a library, each the same: it runs in a worker of its own and imports nothing but its library.

prepare(folder)                what to load: the Hugging Face folder itself, or what is made of it; runs elsewhere
version()                      of the library
Model(path, threads, **arguments)
    .generate(ids, count, tick=None, **settings)
                               the `count` tokens behind each row of `ids`, greedy; tick() after each step
"""
