// What the cases in C and C++ share. Each case is a program that prints "progress", or why there is none; what hangs is ended from outside.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void pause_ms(long ms) {
    struct timespec time = {0, ms * 1000000};
    nanosleep(&time, 0);
}

// Memory that children of fork share.
static char *shared_memory(void) {
    return (char *)mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

// Waits until it sleeps, and goes on sleeping.
static void settle(pid_t pid) {
    char path[64], stat[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    for (int asleep = 0; asleep < 10; pause_ms(1)) {
        FILE *file = fopen(path, "r");
        size_t n = file ? fread(stat, 1, sizeof stat - 1, file) : 0;
        if (file)
            fclose(file);
        stat[n] = 0;
        char *state = strrchr(stat, ')');
        asleep = state && state[2] == 'S' ? asleep + 1 : 0;
    }
}

static void kill_and_reap(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, 0, 0);
}

static void end(const char *word) {
    puts(word);
    fflush(stdout);
    _exit(strcmp(word, "progress") ? 3 : 0);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}
