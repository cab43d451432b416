// glibc's robust mutex and condition variable between processes, when one of them is killed: `cases CASE`.
#include "common.h"
#include <pthread.h>

static pthread_mutex_t *mutex;
static pthread_cond_t *condition;
static volatile int *started;

static void make(void) {
    char *memory = shared_memory();
    mutex = (pthread_mutex_t *)memory;
    condition = (pthread_cond_t *)(memory + 4096);
    started = (volatile int *)(memory + 8192);
    pthread_mutexattr_t m;
    pthread_mutexattr_init(&m);
    pthread_mutexattr_setpshared(&m, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&m, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &m);
    pthread_condattr_t c;
    pthread_condattr_init(&c);
    pthread_condattr_setpshared(&c, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(condition, &c);
}

// Locks, unlocks, and ends.
static pid_t locker(int cpu, int idle) {
    pid_t pid = fork();
    if (pid)
        return pid;
    pin(cpu);
    struct sched_param none = {0};
    if (idle)
        sched_setscheduler(0, SCHED_IDLE, &none);
    pthread_mutex_lock(mutex);
    pthread_mutex_unlock(mutex);
    _exit(0);
}

// A is woken by an unlock and killed before it runs, while another has the mutex again; C goes on sleeping.
static void stranded(void) {
    pin(1);
    pthread_mutex_lock(mutex);
    pid_t a = locker(0, 1);
    settle(a);
    pid_t c = locker(1, 0);
    settle(c);
    pid_t hog = fork();
    if (!hog) {
        pin(0);
        for (;;)
            ;
    }
    pause_ms(2);
    pthread_mutex_unlock(mutex);
    pthread_mutex_lock(mutex);
    kill(a, SIGKILL);
    // A does not come to run its own code any more, but has to run to be taken apart.
    kill_and_reap(hog);
    waitpid(a, 0, 0);
    pthread_mutex_unlock(mutex);
    waitpid(c, 0, 0);
}

static pid_t waiter(void) {
    pid_t pid = fork();
    if (!pid) {
        pthread_mutex_lock(mutex);
        pthread_cond_wait(condition, mutex);
        pthread_mutex_unlock(mutex);
        _exit(0);
    }
    settle(pid);
    return pid;
}

// One waiter is killed; all later ones shall be told.
static void waiter_killed(void) {
    kill_and_reap(waiter());
    for (int round = 0; round < 3; round++) {
        pid_t other = waiter();
        pthread_mutex_lock(mutex);
        pthread_cond_signal(condition);
        pthread_cond_broadcast(condition);
        pthread_mutex_unlock(mutex);
        waitpid(other, 0, 0);
    }
}

int main(int argc, char **argv) {
    make();
    if (argc > 1 && !strcmp(argv[1], "stranded"))
        stranded();
    else if (argc > 1 && !strcmp(argv[1], "condition"))
        waiter_killed();
    else
        end("no such case");
    end("progress");
}
