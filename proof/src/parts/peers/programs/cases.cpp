// boost::interprocess, when a process is killed: `cases CASE`. PROOF_MARK is for what needs a name.
#include "common.h"
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/interprocess/sync/interprocess_condition.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/named_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/version.hpp>
#include <functional>
#include <new>
#include <string>
using namespace boost::interprocess;

static pid_t start(std::function<void()> f) {
    pid_t pid = fork();
    if (pid)
        return pid;
    try {
        f();
    } catch (...) {
        _exit(4);
    }
    _exit(0);
}

// The holder is killed; the next shall have it, be it at the second try.
template <class Mutex> static void next_holder(Mutex &mutex) {
    for (int attempt = 0; attempt < 2; attempt++) {
        try {
            mutex.lock();
            mutex.unlock();
            end("progress");
        } catch (interprocess_exception &e) {
        }
    }
    end("the mutex cannot be locked any more");
}

template <class Mutex> static void holder_killed(Mutex &mutex) {
    pid_t victim = start([&] {
        mutex.lock();
        pause();
    });
    settle(victim);
    kill_and_reap(victim);
    next_holder(mutex);
}

struct Sleepers {
    interprocess_mutex mutex;
    interprocess_condition condition;
};

static void waiter_killed() {
    Sleepers &s = *new (shared_memory()) Sleepers;
    auto waiter = [&] {
        pid_t pid = start([&] {
            scoped_lock<interprocess_mutex> lock(s.mutex);
            s.condition.wait(lock);
        });
        settle(pid);
        return pid;
    };
    kill_and_reap(waiter());
    for (int round = 0; round < 3; round++) {
        pid_t other = waiter();
        {
            scoped_lock<interprocess_mutex> lock(s.mutex);
            s.condition.notify_one();
            s.condition.notify_all();
        }
        waitpid(other, 0, 0);
    }
}

static void receiver_killed(const char *name) {
    message_queue queue(create_only, name, 8, 8);
    auto receiver = [&] {
        pid_t pid = start([&] {
            char bytes[8];
            message_queue::size_type size;
            unsigned priority;
            queue.receive(bytes, sizeof bytes, size, priority);
        });
        settle(pid);
        return pid;
    };
    kill_and_reap(receiver());
    for (int round = 0; round < 3; round++) {
        pid_t other = receiver();
        queue.send("1234567", 8, 0);
        waitpid(other, 0, 0);
    }
    message_queue::remove(name);
}

int main(int argc, char **argv) {
    std::string which = argc > 1 ? argv[1] : "";
    const char *mark = getenv("PROOF_MARK");
    const char *name = mark ? mark : "unnamed";
    if (which == "version") {
        puts(BOOST_LIB_VERSION);
        return 0;
    } else if (which == "mutex") {
        holder_killed(*new (shared_memory()) interprocess_mutex);
    } else if (which == "named_mutex") {
        named_mutex mutex(create_only, name);
        holder_killed(mutex);
    } else if (which == "condition") {
        waiter_killed();
    } else if (which == "message_queue") {
        receiver_killed(name);
    } else {
        end("no such case");
    }
    end("progress");
}
