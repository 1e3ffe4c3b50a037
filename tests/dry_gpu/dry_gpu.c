/* A GPU that does nothing: CUDA's runtime, cuBLAS and cuDNN as far as PyTorch calls them.
 *
 * Preloaded, torch sees one device like an H100. Memory is addresses only, copies from the device are zero, kernels
 * are counted but not run, streams and captures have just enough state to reject what a real capture rejects. Everything
 * above (dispatch, device and type checks, autograd, the caching allocator, generators, deterministic alerts, warnings
 * about synchronization) is torch's own CUDA code.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cuda_runtime_api.h>
/* As cublasLt.h has it. */
typedef struct { uint64_t algo[8]; size_t workspace; int state; float waves; int reserved[4]; } heuristic_t;
#undef cudaGetDeviceProperties

static size_t gib(void) { const char *t = getenv("DRY_GPU_GIB"); return (size_t)(t ? atof(t) * 1024 : 79 * 1024) << 20; }
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t next_handle = 0x1000;
static void *handle(void) { return (void *)__sync_add_and_fetch(&next_handle, 16); }

/* ------------------------------------------------------------------------------------------------------- counters */
enum { KERNELS, LIBRARY, SYNCS, H2D, D2H, D2D, MEMSETS, MALLOCS, GRAPH_LAUNCHES, N_COUNTERS };
long long dry_counters[N_COUNTERS];
static void count(int which) { __sync_add_and_fetch(&dry_counters[which], 1); }

/* -------------------------------------------------------------------------------------------------------- captures */
static int capturing; static cudaStream_t capture_stream; static long long captured; static unsigned long long capture_id;
static int invalid;
static __thread int relaxed; /* cudaStreamCaptureModeRelaxed of this thread */
static __thread cudaError_t last;
static cudaError_t set_error(cudaError_t e) { if (e) last = e; return e; }
/* DRY_FAIL=CODE:N: the device fails with this error at the Nth launch; later calls that can fail return it. */
static int failing(void) {
  static int code = -1; static long long after; static int library_too;
  if (code < 0) { const char *t = getenv("DRY_FAIL"); code = t ? atoi(t) : 0; t = t ? strchr(t, ':') : NULL; after = t ? atoll(t + 1) : 0; }
  return code && dry_counters[KERNELS] + dry_counters[LIBRARY] > after ? code : 0;
}
static cudaError_t waits(cudaStream_t s, int whole_device) {
  count(SYNCS);
  if (failing()) return set_error(failing());
  if (capturing && (whole_device || s == capture_stream || !relaxed)) { invalid = 1; return set_error(cudaErrorStreamCaptureUnsupported); }
  return cudaSuccess;
}
static cudaError_t launched(void) { count(KERNELS); if (capturing) captured++; return set_error(failing()); }
static int library(const char *name) { count(LIBRARY); if (capturing) captured++; return failing() ? (name[1] == 'u' && name[2] == 'd' ? 5000 : 13) : 0; } /* execution failed */

/* ---------------------------------------------------------------------------------------------------------- devices */
cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return 0; }
cudaError_t cudaGetDevice(int *d) { *d = 0; return 0; }
cudaError_t cudaSetDevice(int d) { return set_error(d ? cudaErrorInvalidDevice : 0); }
cudaError_t cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
  memset(p, 0, sizeof *p); snprintf(p->name, sizeof p->name, "Dry H100");
  for (int i = 0; i < 16; i++) p->uuid.bytes[i] = (char)i;
  p->totalGlobalMem = gib(); p->sharedMemPerBlock = 49152; p->regsPerBlock = 65536; p->warpSize = 32;
  p->maxThreadsPerBlock = 1024; p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024; p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647; p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  const char *sm = getenv("DRY_SM"); int cc = sm ? atoi(sm) : 90;
  p->major = cc / 10; p->minor = cc % 10; p->multiProcessorCount = 132; p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerMultiprocessor = 233472; p->sharedMemPerBlockOptin = 232448; p->regsPerMultiprocessor = 65536;
  p->l2CacheSize = 50 << 20; p->textureAlignment = 512; p->totalConstMem = 65536; p->unifiedAddressing = 1; p->managedMemory = 1;
  p->concurrentKernels = 1; p->asyncEngineCount = 3; p->memoryBusWidth = 5120; p->cooperativeLaunch = 1; p->memoryPoolsSupported = 1;
  p->maxBlocksPerMultiProcessor = 32; p->canMapHostMemory = 1; return 0;
}
cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *p, int d) { return cudaGetDeviceProperties(p, d); }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
  struct cudaDeviceProp p; cudaGetDeviceProperties(&p, d); *v = 0;
  switch ((int)a) {
    case cudaDevAttrComputeCapabilityMajor: *v = p.major; break; case cudaDevAttrComputeCapabilityMinor: *v = p.minor; break;
    case cudaDevAttrMultiProcessorCount: *v = 132; break; case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break; case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    case cudaDevAttrMaxGridDimX: *v = 2147483647; break; case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break; case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 233472; break; case cudaDevAttrL2CacheSize: *v = 50 << 20; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *v = 32; break; default: *v = 1; }
  return 0;
}
cudaError_t cudaDeviceGetPCIBusId(char *s, int n, int d) { snprintf(s, n, "0000:%02x:00.0", d); return 0; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
cudaError_t cudaGetLastError(void) { cudaError_t e = last; last = 0; return e; }
cudaError_t cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorString(cudaError_t e) { return e == 700 ? "an illegal memory access was encountered" : e == 209 ? "no kernel image is available for execution on the device" : e == 214 ? "uncorrectable ECC error encountered" : e == 2 ? "out of memory" : e == 900 ? "operation not permitted when stream is capturing" : e == 901 ? "operation failed due to a previous error during capture" : "dry error"; }
const char *cudaGetErrorName(cudaError_t e) { return e == 2 ? "cudaErrorMemoryAllocation" : e == 900 ? "cudaErrorStreamCaptureUnsupported" : e == 901 ? "cudaErrorStreamCaptureInvalidated" : "cudaErrorDry"; }

/* ----------------------------------------------------------------------------------------------------------- memory */
#define BLOCKS 65536
static struct { char *start; size_t size; } blocks[BLOCKS]; static int n_blocks; static size_t used;
cudaError_t cudaMalloc(void **p, size_t n) {
  count(MALLOCS);
  if (capturing && !relaxed) { invalid = 1; return set_error(cudaErrorStreamCaptureUnsupported); }
  pthread_mutex_lock(&lock);
  cudaError_t e = 0;
  size_t rounded = (n + 4095) & ~(size_t)4095;
  if (used + rounded + (500u << 20) > gib()) e = cudaErrorMemoryAllocation; /* a context takes half a gigabyte */
  else {
    *p = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int i = 0; while (i < n_blocks && blocks[i].start) i++;
    if (i == n_blocks) n_blocks++;
    blocks[i].start = *p; blocks[i].size = rounded; used += rounded;
  }
  pthread_mutex_unlock(&lock);
  return set_error(e);
}
static int find(const void *p) { for (int i = 0; i < n_blocks; i++) if (blocks[i].start && (char *)p >= blocks[i].start && (char *)p < blocks[i].start + blocks[i].size) return i; return -1; }
cudaError_t cudaFree(void *p) {
  if (!p) return 0;
  if (capturing && !relaxed) { invalid = 1; return set_error(cudaErrorStreamCaptureUnsupported); }
  pthread_mutex_lock(&lock);
  int i = find(p); if (i >= 0) { munmap(blocks[i].start, blocks[i].size); used -= blocks[i].size; blocks[i].start = NULL; }
  pthread_mutex_unlock(&lock); return 0;
}
cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t s) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t s) { return cudaFree(p); }
cudaError_t cudaMemGetInfo(size_t *free_, size_t *total) { *total = gib(); *free_ = gib() - used - (500u << 20); return 0; }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) { *p = aligned_alloc(4096, (n + 4095) & ~(size_t)4095); return 0; }
cudaError_t cudaFreeHost(void *p) { free(p); return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  memset(a, 0, sizeof *a); int i = find(p);
  if (i >= 0) { a->type = cudaMemoryTypeDevice; a->devicePointer = (void *)p; } else { a->type = cudaMemoryTypeUnregistered; a->hostPointer = (void *)p; }
  return 0;
}
/* Nothing is stored on the device, as no kernel reads it: all reads return zero. */
static void moved(void *to, const void *from, size_t n) {
  int d = find(to) >= 0, s = find(from) >= 0; count(d && s ? D2D : d ? H2D : D2H);
  if (capturing) captured++;
  else if (!d && s) memset(to, 0, n);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind k, cudaStream_t s) { moved(to, from, n); return 0; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) { cudaError_t e = waits(0, 1); if (!e) moved(to, from, n); return e; }
static void cleared(void) { count(MEMSETS); if (capturing) captured++; }
cudaError_t cudaMemset(void *p, int v, size_t n) { cleared(); return 0; }
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) { cleared(); return 0; }
cudaError_t cudaGetSymbolAddress(void **p, const void *s) { static char room[4096]; *p = room; return 0; }

/* ------------------------------------------------------------------------------------------------ streams and graphs */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) { *s = handle(); return 0; }
cudaError_t cudaStreamCreate(cudaStream_t *s) { *s = handle(); return 0; }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return waits(s, 0); }
cudaError_t cudaDeviceSynchronize(void) { return waits(0, 1); }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return waits(0, 0); }
cudaError_t cudaStreamQuery(cudaStream_t s) { return capturing && !relaxed ? set_error(cudaErrorStreamCaptureUnsupported) : 0; }
cudaError_t cudaEventQuery(cudaEvent_t e) { if (capturing && !relaxed) { invalid = 1; return set_error(cudaErrorStreamCaptureUnsupported); } return 0; }
cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = handle(); return 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { *e = handle(); return 0; }
cudaError_t cudaEventElapsedTime(float *t, cudaEvent_t a, cudaEvent_t b) { *t = 1; return 0; }
cudaError_t cudaEventElapsedTime_v2(float *t, cudaEvent_t a, cudaEvent_t b) { *t = 1; return 0; }
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *m) { int before = relaxed; relaxed = *m == cudaStreamCaptureModeRelaxed; *m = before ? cudaStreamCaptureModeRelaxed : cudaStreamCaptureModeGlobal; return 0; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *st) {
  if (capturing && s == 0) { invalid = 1; *st = cudaStreamCaptureStatusNone; return set_error(cudaErrorStreamCaptureImplicit); }
  *st = capturing && s == capture_stream ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone; return 0; }
cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) { capturing = 1; capture_stream = s; captured = 0; invalid = 0; capture_id++; return 0; }
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) { capturing = 0; *g = invalid ? NULL : handle(); return invalid ? set_error(cudaErrorStreamCaptureInvalidated) : 0; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *st, unsigned long long *id, cudaGraph_t *g, const cudaGraphNode_t **d, const cudaGraphEdgeData **e, size_t *n) {
  int on = capturing && s == capture_stream; *st = on ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  if (id) *id = capture_id; if (g) *g = (void *)0x10; if (d) *d = NULL; if (e) *e = NULL; if (n) *n = 0; return 0; }
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long f) { *x = (void *)g; return 0; }
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t *nodes, size_t *n) { *n = captured; return 0; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) { count(GRAPH_LAUNCHES); return 0; }

/* ---------------------------------------------------------------------------------------------------------- kernels */
static __thread struct { dim3 g, b; size_t m; cudaStream_t s; } calls[16]; static __thread int depth;
unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t m, struct CUstream_st *s) { calls[depth].g = g; calls[depth].b = b; calls[depth].m = m; calls[depth].s = s; depth++; return 0; }
cudaError_t __cudaPopCallConfiguration(dim3 *g, dim3 *b, size_t *m, void *s) { depth--; *g = calls[depth].g; *b = calls[depth].b; *m = calls[depth].m; *(cudaStream_t *)s = calls[depth].s; return 0; }
void **__cudaRegisterFatBinary(void *p) { static void *x[8]; return x; }
char __cudaInitModule(void **h) { return 1; }
cudaError_t __cudaGetKernel(void **k, const void *f) { *k = (void *)f; return 0; }
cudaError_t __cudaLaunchKernel(void *k, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return launched(); }
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s) { return launched(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { return launched(); }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) { memset(a, 0, sizeof *a); a->maxThreadsPerBlock = 1024; a->numRegs = 32; a->ptxVersion = 90; a->binaryVersion = 90; return 0; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int b, size_t m, unsigned fl) { *n = 4; return 0; }
static int nothing(void) { return 0; }
static int context_state(int d, unsigned *f, int *active) { if (f) *f = 0; if (active) *active = 1; return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *n, void **f, unsigned v, unsigned long long fl, enum cudaDriverEntryPointQueryResult *r) { *f = !strcmp(n, "cuDevicePrimaryCtxGetState") ? (void *)context_state : (void *)nothing; if (r) *r = 0; return 0; }
int cuDevicePrimaryCtxGetState(int d, unsigned *f, int *active) { return context_state(d, f, active); }
int cuInit(unsigned f) { return 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuCtxGetCurrent(void **c) { *c = (void *)16; return 0; }
int cuDeviceGet(int *d, int n) { *d = n; return 0; }
int cuGetErrorString(int e, const char **s) { *s = "dry"; return 0; }

/* cuDNN: batch norm, pooling and grid sampling; convolutions go through the frontend below */
#define CREATE(name) int name(void **p) { *p = handle(); return 0; }
CREATE(cudnnCreate) CREATE(cudnnCreateActivationDescriptor) CREATE(cudnnCreateConvolutionDescriptor) CREATE(cudnnCreateDropoutDescriptor)
CREATE(cudnnCreateFilterDescriptor) CREATE(cudnnCreatePoolingDescriptor) CREATE(cudnnCreateTensorDescriptor) CREATE(cudnnCreateSpatialTransformerDescriptor)
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *h, int m, int o, void *a, void *b, void *c, void *d, void *e, size_t *n) { *n = 1 << 16; return 0; }
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *h, int m, int o, void *a, void *b, void *c, void *d, void *e, void *f, void *g, size_t *n) { *n = 1 << 16; return 0; }
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *h, int m, int o, void *a, void *b, size_t *n) { *n = 1 << 16; return 0; }
int cudnnDropoutGetStatesSize(void *h, size_t *n) { *n = 4096; return 0; }
const char *cudnnGetErrorString(int e) { return "dry"; }
#define CALL(name) int name(void) { return library(#name); }
CALL(cudnnBatchNormalizationForwardTrainingEx) CALL(cudnnBatchNormalizationForwardInference) CALL(cudnnBatchNormalizationBackwardEx) CALL(cudnnPoolingForward)
CALL(cudnnSpatialTfSamplerForward) CALL(cudnnSpatialTfSamplerBackward) CALL(cudnnSpatialTfGridGeneratorForward) CALL(cudnnSpatialTfGridGeneratorBackward)

/* ----------------------------------------------------------------------------------------------------------- cuBLAS */
CREATE(cublasCreate_v2)
int cublasGetMathMode(void *h, int *m) { *m = 0; return 0; }
int cublasGetPointerMode_v2(void *h, int *m) { *m = 0; return 0; }
int cublasLtMatmulDescCreate(void **p, int a, int b) { *p = handle(); return 0; }
int cublasLtMatrixLayoutCreate(void **p, int t, uint64_t r, uint64_t c, int64_t l) { *p = handle(); return 0; }
int cublasLtMatmulPreferenceCreate(void **p) { *p = handle(); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void *h, void *d, void *a, void *b, void *c, void *e, void *p, int want, heuristic_t *r, int *got) { memset(r, 0, sizeof *r); *got = 1; return 0; }
CALL(cublasGemmEx) CALL(cublasGemmStridedBatchedEx) CALL(cublasSgemm_v2) CALL(cublasSgemmStridedBatched) CALL(cublasSgemmEx) CALL(cublasSgemv_v2) CALL(cublasDgemm_v2) CALL(cublasDgemv_v2) CALL(cublasSdot_v2) CALL(cublasDotEx) CALL(cublasLtMatmul)

/* cuDNN's frontend: every graph has one engine configuration, without notes and knobs. An execution
 * counts as one call, whatever the graph of its plan. */
int cudnnBackendCreateDescriptor(int type, void **p) { *p = handle(); return 0; }
int cudnnBackendGetAttribute(void *d, int name, int type, int64_t want, int64_t *got, void *values) {
  enum { RESULTS = 202, CFG_ENGINE = 300, PLAN_CONFIG = 401, PLAN_WORKSPACE = 402, ENGINE_COUNT = 802, ENGINE_INDEX = 1301 };
  int one = name == RESULTS || name == CFG_ENGINE || name == PLAN_CONFIG || name == PLAN_WORKSPACE || name == ENGINE_COUNT || name == ENGINE_INDEX;
  if (got) *got = one;
  if (values && want > 0 && (name == PLAN_WORKSPACE || name == ENGINE_COUNT || name == ENGINE_INDEX)) *(int64_t *)values = name == PLAN_WORKSPACE ? 1 << 20 : name == ENGINE_COUNT;
  return 0;
}
CALL(cudnnBackendExecute)
#include "rest.h"
