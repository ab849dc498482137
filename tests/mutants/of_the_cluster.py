"""Defects of the cluster: of acknowledging, of being current, of trusting a stream."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

NODES: Final = "tests/cluster/test_nodes.py"
HISTORIES: Final = "tests/cluster/test_histories.py"
PROMISES: Final = "tests/cluster/test_promises.py"
STREAMS: Final = "tests/cluster/test_bad_streams.py"
COMPARISON: Final = "tests/cluster/test_comparison.py"
TABLES: Final = "tests/cluster/test_table_histories.py"
SURVEY: Final = "tests/model/test_table_survey.py"
TAKING: Final = "tests/cluster/test_jetstream_taking.py"
FOLLOWING: Final = "tests/unit/test_following.py"

CLUSTER: Final[tuple[Mutant, ...]] = (
    mutant(
        "leave a session that has lost its token to who began it",
        "store.py",
        "outcome == _TOKEN_EXISTS and isinstance(inner, SessionStated)",
        "outcome == _TOKEN_EXISTS and isinstance(inner, KeyStated)",
        FOLLOWING,
    ),
    mutant(
        "forget a revocation by the end that the revoking node knew",
        "cluster/statement.py",
        ".ttl_ms > revocation.ttl_ms]",
        ".ttl_ms < 0]",
        "tests/cluster/test_statement.py",
    ),
    mutant(
        "take what comes behind a record that is lost",
        "cluster/follower.py",
        " or not number.isdecimal() or not is_next:\n",
        " or not number.isdecimal():\n",
        "tests/cluster/test_fetching.py",
    ),
    mutant(
        "take a server that has no record yet for one that has dropped it",
        "cluster/stream.py",
        "facts_of(info).last_sequence >= sequence and not info",
        "not info",
        "tests/cluster/test_stream.py",
    ),
    mutant(
        "forget a session by the end that it was given last",
        "cluster/statement.py",
        "        ends_ms = max(ends_ms, self._following.held_until_ms(session_id))\n",
        "",
        "tests/cluster/test_statement.py",
    ),
    mutant(
        "answer without having heard who was active",
        "cluster/missed_touches.py",
        "        if not is_current:\n",
        "        if not is_current and not self._current_ms:\n",
        "tests/cluster/test_missed_touches.py",
    ),
    mutant(
        "call a question answered that was asked before the node was away again",
        "cluster/missed_touches.py",
        "before != (self._looks_away, self._link.reconnects)",
        "before[1] != self._link.reconnects",
        "tests/cluster/test_missed_touches.py",
    ),
    mutant(
        "pass over at once who does not tell who was active",
        "cluster/missed_touches.py",
        "                if not is_heard or time.monotonic() >= until_s:\n",
        "                if is_heard or time.monotonic() >= until_s:\n",
        "tests/cluster/test_missed_touches.py",
    ),
    mutant(
        "give a cluster's first key another id on each node",
        "app.py",
        "create_first(self._node_log.first_key_id,",
        "create_first(None,",
        "tests/cluster/test_first_key.py",
    ),
    mutant(
        "revoke of a user's sessions only what lives by this node's clock",
        "sessions/service.py",
        "            ids += of_user.expired(except_id, shards)\n",
        "            ids += []\n",
        "tests/unit/test_sessions.py",
    ),
    mutant(
        "acknowledge before a majority has applied it",
        "cluster/jetstream_log.py",
        "self._stored if majority else self._stored_alone",
        "self._stored_alone",
        f"{PROMISES}::test_what_only_the_stream_has_is_not_acknowledged",
    ),
    mutant(
        "acknowledge a revocation that was asked for before",
        "sessions/service.py",
        "        if not parts and self._spread is not None:\n",
        "        if not parts and self._spread is None:\n",
        PROMISES,
    ),
    mutant(
        "leave out what a change was decided on",
        "cluster/publishing.py",
        "            if publication.expected != UNCONDITIONAL:\n",
        "            if publication.expected == 0:\n",
        f"{HISTORIES}::test_of_writers_with_one_version_on_all_nodes_one_wins_each_time",
    ),
    mutant(
        "believe a server that leads no more",
        "cluster/publishing.py",
        "            if last > publication.expected and publication.attempts == 1:\n",
        "            if publication.attempts == 1:\n",
        "tests/cluster/test_publishing.py",
    ),
    mutant(
        "revoke only what nobody else has changed",
        "cluster/statement.py",
        "        return Statement(self._subjects.session(session_id), record, UNCONDITIONAL,",
        "        return Statement(self._subjects.session(session_id), record, self._following.sequence_of_entry(entry),",
        f"{HISTORIES}::test_a_revocation_amid_updates_by_other_nodes_is_never_refused_nor_undone",
    ),
    mutant(
        "answer reads whatever was heard",
        "_core/server.pyx",
        "        if tm_monotonic_ns() > self.fresh_until_ns and self._tells_state[head.route_number]:\n",
        "        if self.fresh_until_ns == 0 and self._tells_state[head.route_number]:\n",
        f"{NODES}::test_a_node_without_a_majority_refuses_writes_and_soon_reads",
    ),
    mutant(
        "count a node from its start",
        "cluster/node.py",
        "        self._is_counted = False\n",
        "        self._is_counted = True\n",
        f"{PROMISES}::test_a_node_that_starts_again_is_counted_only_when_its_start_has_come_back_to_it",
    ),
    mutant(
        "follow a stream of the same name",
        "cluster/stream.py",
        "        if facts.created_ns != following.created_ns:\n",
        "        if facts.created_ns < following.created_ns:\n",
        STREAMS,
    ),
    mutant(
        "take records over a gap",
        "_core/streamed.pyx",
        "        if number != self.due:\n",
        "        if number < self.due:\n",
        "tests/unit/test_streamed.py", "tests/cluster/test_follower.py",
    ),
    mutant(
        "die of a record whose values no table takes",
        "store.py",
        "        except (ValueError, OverflowError):  # values",
        "        except KeyError:  # values",
        FOLLOWING,
    ),
    mutant(
        "leave a session's data out of what nodes compare",
        "_core/survey.pyx",
        "        summary.data = tm_siphash13(self.key, text + stored + last_ip_size, block.data_size)\n",
        "        summary.data = 0\n",
        f"{SURVEY}::test_another_value_of_any_field_is_another_sum_of_its_shard_alone",
    ),
    mutant(
        "survey what has changed since",
        "_core/image.pyx",
        "        self.survey.count_in(entry)\n        self._save(entry)\n",
        "        self._save(entry)\n",
        f"{SURVEY}::test_a_survey_in_pieces_is_that_of_the_moment_when_it_began",
    ),
    mutant(
        "hold tables for different after one place",
        "cluster/comparison.py",
        "PLACES_IN_A_ROW: Final = 3",
        "PLACES_IN_A_ROW: Final = 1",
        COMPARISON,
    ),
    mutant(
        "let a node stand apart because another is against it",
        "cluster/comparison.py",
        "elif count >= owners // 2 + 1:",
        "elif count >= 1:",
        COMPARISON,
    ),
    mutant(
        "leave out of the comparison whether a key is enabled",
        "cluster/key_survey.py",
        "bytes((active,))",
        "bytes((True,))",
        "tests/cluster/test_comparing.py::test_the_sum_of_the_keys_is_of_all_that_the_stream_says_of_them_and_of_nothing_else",
    ),
    mutant(
        "begin anew again and again",
        "host/apart.py",
        "if self.began is None or time_ms - self.began.time_ms >= AGAIN_MS:",
        "if time_ms > 0:",
        "tests/unit/test_apart.py::test_it_does_not_begin_anew_twice_within_an_hour",
    ),
    mutant(
        "forget that a node is wrong before what it had is set aside",
        "host/apart.py",
        "        if path.name != LOCK_NAME and path.suffix != _UNFINISHED:\n",
        "        (source.parent / APART_NAME).unlink(missing_ok=True)\n"
        "        if path.name != LOCK_NAME and path.suffix != _UNFINISHED:\n",
        "tests/unit/test_apart.py::test_a_kill_at_any_call_leaves_it_standing_apart_or_begun_anew_and_the_next_start_goes_on",
    ),
    mutant(
        "compare where records may be missing",
        "following.py",
        "self._missing_before <= self.place.position",
        "self.place.position > 0",
        f"{TABLES}::test_nodes_that_read_late_and_by_other_clocks_are_equal_wherever_they_are_exact",
    ),
    mutant(
        "take what does not follow on what was taken",
        "cluster/jetstream_log.py",
        "        if self.failure is None and batch.previous == self._taken:\n",
        "        if self.failure is None:\n",
        TAKING,
    ),
    mutant(
        "answer flow control while what came before it is held",
        "cluster/consumer.py",
        """        elif reply:
            self._hold(reply)
""",
        """        elif reply:
            self._held.appendleft(reply)
            self._wake.set()
""",
        "tests/cluster/test_follower.py",
    ),
    mutant(
        "apply a batch beyond what is refused of it",
        "log/settling.py",
        "count = min(end - self._batch_at, refused[0].start - self._settled) if refused else end - self._batch_at",
        "count = end - self._batch_at",
        "tests/unit/test_wal_batches.py",
    ),
    mutant(
        "begin a session that is there, the short way",
        "_core/stated.pyx",
        "if table.find_session(stated.bytes + ID_AT) != 0:",
        "if table.find_session(stated.bytes + ID_AT) == 0xFFFFFFFF:",
        "tests/unit/test_stated.py",
    ),
    mutant(
        "forget the version of a session that begins the short way",
        "_core/stated.pyx",
        "    if version != 1 and table._changeable(entry[0]) == DONE:\n",
        "    if version == 0 and table._changeable(entry[0]) == DONE:\n",
        "tests/unit/test_stated.py",
    ),
    mutant(
        "pass over the end of a session that is there, the short way",
        "_core/stated.pyx",
        "elif form != FORM_REVOKED or not are_unknown(table, &stated):",
        "elif form != FORM_REVOKED:",
        "tests/unit/test_stated.py",
    ),
    mutant(
        "cut a frame where its payload ends",
        "_core/nats_frames.pyx",
        "    size[0] = line_size + <size_t>all_bytes + 2\n",
        "    size[0] = line_size + <size_t>all_bytes\n",
        "tests/unit/test_nats_frames.py",
    ),
)  # fmt: skip
