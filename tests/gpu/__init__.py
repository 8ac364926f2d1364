"""What EditLoop does on a GPU, at real sizes with random weights: rows of a table, each in a process of its own.

tests/gpu/collect.sh            # where there is a package index: wheels into build/gpu-wheels
tests/gpu/run.sh                # on the machine with the GPU: build/gpu/gpu.json and its page
tests/gpu/run.sh --tiny         # the same rows at tiny sizes, on any CPU
"""
