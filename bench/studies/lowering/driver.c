/* libcuda.so.1 of a machine without a driver: Triton's launcher links to it, and nothing is ever launched. */
#define ANSWER(name) int name() { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 0; return 0; }
int cuCtxGetCurrent(void **context) { *context = 0; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "no device: it is pretended"; return 0; }
ANSWER(cuInit) ANSWER(cuDeviceGet) ANSWER(cuDeviceGetAttribute) ANSWER(cuDevicePrimaryCtxRetain)
ANSWER(cuCtxGetDevice) ANSWER(cuCtxSetCurrent) ANSWER(cuCtxGetLimit) ANSWER(cuCtxSetLimit)
ANSWER(cuFuncGetAttribute) ANSWER(cuFuncSetAttribute) ANSWER(cuFuncSetCacheConfig)
ANSWER(cuModuleGetFunction) ANSWER(cuModuleLoadData) ANSWER(cuModuleUnload) ANSWER(cuPointerGetAttribute)
