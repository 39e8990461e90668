// Kernels: see README.md
