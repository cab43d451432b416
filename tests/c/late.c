#include <stdlib.h>

static int ran;
static int saw_marker;

__attribute__((constructor)) static void late(void) {
    ran++;
    /* multiproc's entry takes the marker out of the environment: seen here, it would have run later. */
    saw_marker = getenv("MULTIPROC_WORKER") != NULL;
}

int late_ran(void) { return ran; }
int late_saw_marker(void) { return saw_marker; }
