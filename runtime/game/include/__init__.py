"""The C and C++ headers of the shared memory; `velatura include-dir` prints this folder."""
