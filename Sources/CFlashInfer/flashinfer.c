#include "flashinfer.h"
