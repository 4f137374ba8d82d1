Feature: Models of the Hugging Face hub
  A model that is asked for and not here is fetched, once: with progress, over a bad line, verified, and remembered.

  M is hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF; a stand-in for the hub holds it.

  @s07
  Scenario: A cold start, the whole path, on a node
    Given the hub holds M, and sends it in a second
    And a queen runs
    And workstation is registered, and reaches that hub
    And rbee is installed there
    And the queen has known it for a while
    When the user runs infer with M and 20 tokens there, on a terminal
    Then it exits with 0
    And the terminal showed SSH, hive, download with percent and speed, check, worker, ready callback, loading and text
    And the node's last connection has moved, and it is reachable
    And the catalogue there has one row for M
    And the worker there is idle, at port 8001, and runs the file that the row names
    And a request for M there is sent to that very address

  @s07
  Scenario: A cold start, the whole path, on this host
    Given the hub holds M
    And a queen runs
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And stderr names hive, download, check, worker, ready callback and loading, in this order
    And the catalogue has one row for M
    And the worker is idle, and runs the file that the row names
    And no process asked the hub for more than M once

  @s15
  Scenario: What is in the catalogue asks no hub
    Given the hub holds M
    And a queen runs
    And the user has run infer with M
    And the worker has been shut down
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And the hub was not asked again
    And the worker is idle, and runs the file that the row names

  @s15
  Scenario: What is in the catalogue needs no hub
    Given the hub holds M
    And the user has run infer with M
    And the hub cannot be reached
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And stdout holds the 20 tokens that M gives

  Scenario: What is in the user's Hugging Face cache needs no hub
    Given the hub cannot be reached
    And the user's Hugging Face cache has M
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And stderr says "The hub is out of reach"
    And stderr says "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf is in the Hugging Face cache of this node"

  @s16
  Scenario: A download reports its progress
    Given the hub holds M, and sends it in three seconds
    And a hive runs
    When a client has the hive download M and follows the progress
    Then the bytes rise to the total, with a speed, and then the file is complete with its path
    And the stream has ended in order
    And the catalogue has one row for M

  @s16
  Scenario: A download is drawn with percent and speed
    Given the hub holds M, and sends it in three seconds
    When the user pulls M on a terminal
    Then it exits with 0
    And the bar has shown percent and MB/s, and never went back

  @s17
  Scenario: A download whose connection is reset again and again
    Given the hub holds M, and resets every connection at 40 %
    When the user runs infer with M and 20 tokens
    Then it exits with 1
    And the hub was asked 6 times, each time for what was missing, with delays that double from 100 ms
    And stderr says "could not be fetched"
    And stderr says "after 6 attempts, at 40 %"
    And no process is left

  @s17
  Scenario: A download whose connection is reset once
    Given the hub holds M, and resets the first connection at 40 %
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And stdout holds the 20 tokens that M gives
    And the hub has sent as many bytes as M has

  @s18
  Scenario: The catalogue's row
    Given the hub holds M
    When the user runs infer with M and 20 tokens
    Then models list names it with id, provider, reference without prefix, path, size and time
    When the user runs infer with M and 20 tokens
    Then it exits with 0
    And the hub has sent as many bytes as M has

  @s17 @s37
  Scenario: The code of a download that failed
    Given the hub holds M, and resets every connection at 40 %
    And a hive runs
    When a client has the hive download M, and asks it for a worker with M
    Then it is answered with 502 and DOWNLOAD_FAILED
    And the answer and the download's last event say after 6 attempts, at 40 %, and why

  @s37
  Scenario: The retries of a download are seen
    Given the hub holds M, and resets the first connection at 40 % after a second
    When the user pulls M on a terminal
    Then it exits with 0
    And the bar was at 40 %, then came the error with "attempt 2/6 in 100 ms", and the bar went on from 40 %

  @s37
  Scenario: The last of the retries is seen too
    Given the hub holds M, and resets every connection at 40 %
    When the user pulls M on a terminal
    Then it exits with 1
    And attempts 2 to 6 were shown with their delays, and then the end of it

  @h3
  Scenario Outline: A model that is neither here nor on the hub
    Given the hub holds M
    When the user runs infer with the model "<reference>"
    Then it exits with 1
    And stderr says "<words>"
    And no process is left

    Examples:
      | reference                                          | words                                      |
      | hf:nobody/nothing                                  | has no such model or file                  |
      | hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q2_K     | has no Q2_K                                |
      | hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q2_K     | tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf       |

  Scenario: A private model
    Given the hub holds M for users with a token
    When the user runs infer with M and 20 tokens
    Then it exits with 1
    And stderr says "does not give us this model"
    And stderr says "HF_TOKEN"
    When the user has the token and runs infer with M
    Then it exits with 0
    And the token went to the hub alone

  Scenario: Two pulls of one model, of which one is given up
    Given the hub holds M, and sends it in three seconds
    And a queen runs
    When two users pull M and one of them presses Ctrl+C
    Then that one exits with 130 and the other with 0
    And the hub has sent as many bytes as M has

  Scenario: A model is shown and removed
    Given the hub holds M
    And a queen runs
    And the user has run infer with M
    Then models show names architecture, quantisation, context, vocabulary, end token and layers
    And models rm refuses while the worker has it
    When the worker has been shut down
    Then models rm removes it and its file
