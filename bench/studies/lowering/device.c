/* Preloaded, it answers for one H100 (sm_90) what torch asks of CUDA before a fake tensor may live there.
   Queries alone: nothing is allocated, copied or launched. The names are those of one torch build. */
#include <string.h>
#include "properties.h" /* struct cudaDeviceProp, cut out of the header of the CUDA that torch came with */

typedef signed char Index;
typedef struct { signed char type, index; long id; } Stream; /* c10::Stream */

#define GIVES(type, name, parameters, value) type name parameters { return value; }
#define SETS(name, parameters, set) int name parameters { set; return 0; }

/* c10::cuda */
GIVES(Index, _ZN3c104cuda12device_countEv, (void), 1)
GIVES(Index, _ZN3c104cuda28device_count_ensure_non_zeroEv, (void), 1)
GIVES(Index, _ZN3c104cuda14current_deviceEv, (void), 0)
GIVES(Index, _ZN3c104cuda14ExchangeDeviceEa, (Index to), 0)
GIVES(Index, _ZN3c104cuda19MaybeExchangeDeviceEa, (Index to), 0)
GIVES(int, _ZN3c104cuda17hasPrimaryContextEa, (Index device), 0)
SETS(_ZN3c104cuda14GetDeviceCountEPi, (int *count), *count = 1)
SETS(_ZN3c104cuda9GetDeviceEPa, (Index *device), *device = 0)
SETS(_ZN3c104cuda9SetDeviceEab, (Index device, int force), )
SETS(_ZN3c104cuda14MaybeSetDeviceEa, (Index device), )
void _ZN3c104cuda10set_deviceEab(Index device, int force) {}

static Stream only(void) { Stream stream = {1, 0, 0}; return stream; }
GIVES(Stream, _ZN3c104cuda20getCurrentCUDAStreamEa, (Index device), only())
GIVES(Stream, _ZN3c104cuda20getDefaultCUDAStreamEa, (Index device), only())
GIVES(Stream, _ZN3c104cuda17getStreamFromPoolEba, (int high, Index device), only())
GIVES(Stream, _ZN3c104cuda17getStreamFromPoolEia, (int priority, Index device), only())

/* the runtime */
SETS(cudaGetDevice, (int *device), *device = 0)
SETS(cudaSetDevice, (int device), )
SETS(cudaGetDeviceCount, (int *count), *count = 1)
SETS(cudaDriverGetVersion, (int *version), *version = 13000)
SETS(cudaRuntimeGetVersion, (int *version), *version = 13000)
SETS(cudaGetLastError, (void), )
SETS(cudaPeekAtLastError, (void), )
SETS(cudaDeviceGetAttribute, (int *value, int attribute, int device), *value = 1)
SETS(cudaDeviceGetStreamPriorityRange, (int *least, int *greatest), (*least = 0, *greatest = -5))
SETS(cudaStreamIsCapturing, (void *stream, int *status), *status = 0)
SETS(cudaStreamGetCaptureInfo_v2, (void *stream, int *status), *status = 0)
SETS(cudaStreamCreateWithPriority, (void **stream, unsigned flags, int priority), *stream = (void *)16)
SETS(cudaStreamWaitEvent, (void *stream, void *event, unsigned flags), )
SETS(cudaStreamQuery, (void *stream), )
SETS(cudaStreamSynchronize, (void *stream), )
SETS(cudaDeviceSynchronize, (void), )
SETS(cudaEventCreate, (void **event), *event = (void *)8)
SETS(cudaEventCreateWithFlags, (void **event, unsigned flags), *event = (void *)8)
SETS(cudaEventRecord, (void *event, void *stream), )
SETS(cudaEventRecordWithFlags, (void *event, void *stream, unsigned flags), )
SETS(cudaEventQuery, (void *event), )
SETS(cudaEventSynchronize, (void *event), )
SETS(cudaEventDestroy, (void *event), )

int cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
  memset(of, 0, sizeof *of);
  strcpy(of->name, "NVIDIA H100 80GB HBM3");
  of->major = 9;
  of->minor = 0;
  of->multiProcessorCount = 132;
  of->warpSize = 32;
  of->totalGlobalMem = 80ull << 30;
  of->maxThreadsPerBlock = 1024;
  of->maxThreadsPerMultiProcessor = 2048;
  of->regsPerMultiprocessor = 65536;
  of->sharedMemPerBlock = 49152;
  of->sharedMemPerBlockOptin = 232448;
  of->sharedMemPerMultiprocessor = 233472;
  of->l2CacheSize = 50 << 20;
  return 0;
}
