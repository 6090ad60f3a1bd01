/* Says of each larger mapping that a process gives back whether anything was left in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stddef.h>
#include <sys/mman.h>

int munmap(void *memory, size_t bytes)
{
    int (*real)(void *, size_t) = (int (*)(void *, size_t))dlsym(RTLD_NEXT, "munmap");
    const unsigned char *at = memory;
    unsigned char resident[256];
    size_t left = 0;

    /* A ring of 5 s is 256 slots of 336 bytes: 86016. Nothing else here has that size. */
    if (bytes == 86016 && mincore(memory, bytes, resident) == 0) {
        for (size_t i = 0; i < bytes; i++)
            left += at[i] != 0;
        fprintf(stderr, "MUNMAP %zu left\n", left);
        fflush(stderr);
    }
    return real(memory, bytes);
}
